"""Arguments of networks: from recipes and flags to timm, refused if they cannot work, part of a run's identity."""

from __future__ import annotations

from typing import Any

import pytest
from support.recipes import TINY, with_settings

from kdaug.cli.recipe_arguments import parse_recipe
from kdaug.config import Recipe, derive_teacher_recipe, from_yaml, teacher_network, to_yaml
from kdaug.errors import InputError
from kdaug.networks import create_network
from kdaug.runs import recipe_fingerprint


def test_flags_and_yaml_give_the_same_recipe() -> None:
    flags = ["--student.arguments", "img_size=64", "act_layer=gelu", "qkv_bias=false", "init_values=1e-5"]
    recipe = parse_recipe(Recipe(), flags, "kdaug train", "")
    assert recipe.student.arguments == {
        "img_size": 64, "act_layer": "gelu", "qkv_bias": False, "init_values": 1e-5,
    }  # fmt: skip
    assert from_yaml(to_yaml(recipe)) == recipe
    yaml = "student: {arguments: {img_size: 64, act_layer: gelu, qkv_bias: false, init_values: 1e-5}}"
    assert from_yaml(yaml) == recipe
    assert parse_recipe(recipe, [], "kdaug train", "") == recipe
    assert parse_recipe(recipe, ["--student.arguments"], "kdaug train", "") == Recipe()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("img_size", "'img_size' must be KEY=VALUE"), ("=3", "'=3' must be KEY=VALUE"),
        ("a=[1]", r"\[1\] must be a number, text, true or false"), ("a=null", "null must be a number"),
        ("a b=1", "has 'a b', which is not the name of an argument"),
    ],
)  # fmt: skip
def test_a_malformed_flag_is_an_error(word: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_recipe(Recipe(), ["--student.arguments", word], "kdaug train", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_sise": 64}, "network vit_tiny_patch16_224 has no argument img_sise; check student.arguments"),
        ({"img_size": "big"}, "network vit_tiny_patch16_224 cannot be created"),
        ({"num_classes": 3}, "the network argument num_classes is set by kdaug"),
        ({"drop_rate": 0.1}, "drop_rate is set by kdaug; use student.dropout"),
        ({"checkpoint_path": "x"}, "checkpoint_path is not an argument of a network"),
    ],
)
def test_an_argument_that_cannot_work_is_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        create_network("vit_tiny_patch16_224", 10, 3, arguments=arguments)


def test_arguments_identify_a_run_in_any_order() -> None:
    one = with_settings(TINY, {"student.arguments": {"a": 1, "b": 2}})
    other = with_settings(TINY, {"student.arguments": {"b": 2, "a": 1}})
    assert recipe_fingerprint(one) == recipe_fingerprint(other) != recipe_fingerprint(TINY)
    assert len({one.student, other.student, TINY.student}) == 2


def test_a_teacher_without_a_network_has_the_arguments_of_the_student() -> None:
    recipe = with_settings(TINY, {"student.arguments": {"a": 1}, "teacher.source": "train"})
    assert derive_teacher_recipe(recipe).student == recipe.student
    assert teacher_network(with_settings(recipe, {"teacher.arguments": {"b": 2}})).arguments == {"b": 2}
    named = with_settings(recipe, {"teacher.network": "resnet10t"})
    assert teacher_network(named).arguments == {}
