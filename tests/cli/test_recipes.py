"""kdaug recipes: what it prints can be trained from, found, and checked."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kdaug.config import from_yaml
from kdaug.recipes import RECIPES, named_recipe
from kdaug.training import smoke_test as smoke_test_module

SOME = ["demo", "photos", "cifar100-table1-small", "cifar10-shake_shake26_2x96d-kd", "imagenet-efficientnet_b8-kd-800"]


def test_the_list_has_every_recipe_with_its_published_error_and_batch(kdaug: Callable) -> None:
    said = kdaug("recipes")
    assert (said.code, said.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in said.out.splitlines() if line.startswith("  ")}
    assert list(rows) == list(RECIPES)
    for name, named in RECIPES.items():
        published = ["-"] if named.published_error is None else [f"{named.published_error:.1f}", "%"]
        assert rows[name][: len(published) + 1] == [*published, str(named.make().optimization.global_batch)]


def test_words_choose_the_recipes_that_have_them_all(kdaug: Callable) -> None:
    said = kdaug("recipes", "--json", "CIFAR-100", "kd", "pyramid")
    found = [json.loads(line) for line in said.out.splitlines()]
    assert [line["name"] for line in found] == ["cifar100-pyramidnet272_a200_shakedrop-kd"]
    assert found[0]["published_error"] == 10.6
    assert found[0]["gpu_hours"] == pytest.approx(7 * 8_977_711_872 * 50_000 * 1800 / 60e12 / 3600, rel=1e-3)


def test_words_that_no_recipe_has_are_refused(kdaug: Callable) -> None:
    said = kdaug("recipes", "cifar100", "xyz")
    assert said.code == 2
    assert said.err == ("kdaug: no recipe has cifar100 and xyz in its name or description; kdaug recipes has all\n")


@pytest.mark.parametrize("name", SOME)
def test_a_recipe_shown_is_yaml_of_that_recipe_with_its_source(kdaug: Callable, name: str) -> None:
    said = kdaug("recipes", "show", name)
    assert (said.code, said.err) == (0, "")
    assert from_yaml(said.out) == named_recipe(name)
    comments = [line[1:].strip() for line in said.out.splitlines() if line.startswith("#")]
    assert comments == [line.strip() for line in RECIPES[name].documentation.splitlines()]


def test_a_check_names_what_is_sound_and_what_is_not(kdaug: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    said = kdaug("recipes", "--check", "bundled")
    assert said.code == 0
    assert said.out.splitlines()[1].startswith("demo ")
    assert "all 1 are sound" in said.out

    monkeypatch.setattr(smoke_test_module, "smoke_test_in_subprocess", lambda *_: "InputError: no such thing")
    said = kdaug("recipes", "--check", "demo", "bundled")
    assert said.code == 1
    assert "FAILED: InputError: no such thing" in said.out
    assert said.err == "kdaug: 1 of 1 recipes are not sound\n"
