"""supervision.method in flags, files and sweeps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdaug.cli.recipe_arguments import parse_recipe
from kdaug.config import METHODS, Recipe, Supervision, Teacher, check, from_yaml, to_yaml, with_method, with_settings
from kdaug.errors import InputError
from kdaug.recipes import named_recipe

IMAGENET = Supervision(weight=2.0, k=50, temperature=10.0, label_smoothing=0.1)


def flags(recipe: Recipe, text: str) -> Supervision:
    return parse_recipe(recipe, text.split(), "kdaug train", "").supervision


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_valid_and_is_written_out(method: str) -> None:
    recipe = replace(named_recipe("cifar100-table1-m1-kd"), teacher=Teacher(source="run:x"))
    changed = replace(recipe, supervision=flags(recipe, f"--supervision.method {method}"))
    assert from_yaml(to_yaml(check(changed))) == changed
    assert "method: null" in to_yaml(changed)
    assert (changed.supervision == recipe.supervision) == (method == "paper")


def test_published_values() -> None:
    """DKD for CIFAR-100: alpha 1, beta 8, T = 4 (arXiv 2203.08679). DIST (arXiv 2205.10536): weight 2, T = 4."""
    dkd = Supervision(divergence="decoupled", temperature=4.0, non_target_weight=8.0)
    assert with_method(Supervision(), "dkd") == dkd
    assert with_method(Supervision(), "dist") == Supervision(divergence="dist", temperature=4.0, weight=2.0)
    assert with_method(Supervision(), "robust") == Supervision(divergence="dist", temperature=4.0, weight=3.0)
    assert with_method(Supervision(), "kd").k is None
    standardized = Supervision(k=None, standardize_logits=True, weight=9.0, temperature=2.0)  # arXiv 2403.01427, code
    assert with_method(Supervision(weight=0.5, temperature=10.0), "kd-standardized") == standardized
    with pytest.raises(InputError, match="'nope' is not a method of supervision; choose one of paper, robust, kd"):
        with_method(Supervision(), "nope")  # type: ignore[arg-type]


@pytest.mark.parametrize("order", ["{method} {other}", "{other} {method}"])
def test_flags_override_the_method_also_with_the_default_of_a_setting(order: str) -> None:
    text = order.format(method="--supervision.method=dkd", other="--supervision.temperature 2")
    assert flags(Recipe(), text) == Supervision(divergence="decoupled", temperature=2.0)


def test_a_method_resets_another_one_and_keeps_what_differs_between_the_papers_recipes() -> None:
    recipe = Recipe(supervision=replace(IMAGENET, label_trust=True, mass=0.9, scale_by_t2=False))
    assert flags(recipe, "--supervision.method paper") == IMAGENET
    assert flags(recipe, "--supervision.method kd") == replace(IMAGENET, k=None)
    dkd = flags(Recipe(), "--supervision.method dkd")
    assert flags(Recipe(supervision=dkd), "--supervision.method kd") == Supervision(k=None, temperature=4.0)


def test_method_in_a_file() -> None:
    recipe = from_yaml("supervision: {temperature: 2.0, method: dist}")
    assert recipe.supervision == Supervision(divergence="dist", weight=2.0, temperature=2.0)
    with pytest.raises(InputError, match=r"^recipe: supervision\.method is 'dkt'.*did you mean dkd"):
        from_yaml("supervision: {method: dkt}")


def test_method_as_an_axis_of_a_sweep() -> None:
    recipe = Recipe(supervision=replace(IMAGENET, drop_worst=0.2))
    changed = with_settings(recipe, {"supervision.method": "dkd", "supervision.weight": 3.0}, "run")
    expected = replace(IMAGENET, divergence="decoupled", weight=3.0, temperature=4.0)
    assert changed.supervision == expected
    assert with_settings(recipe, {"supervision.weight": 3.0}, "run").supervision.drop_worst == 0.2


def test_method_in_python_is_refused() -> None:
    with pytest.raises(InputError, match=r"supervision\.method is dkd") as error:
        check(Recipe(supervision=Supervision(method="dkd")))
    assert "with_method" in error.value.hint
