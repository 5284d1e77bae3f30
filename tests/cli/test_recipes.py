"""kdaug recipes: list, search, show and smoke test."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from kdaug.config import from_yaml
from kdaug.recipes import RECIPES, named_recipe
from kdaug.training import smoke_test as smoke_test_module

SOME = ["demo", "photos", "table1-small", "cifar10-shake_shake26_2x96d-kd", "imagenet-efficientnet_b8-kd-800"]


def test_the_list_has_every_recipe_with_error_and_batch(kdaug: Callable) -> None:
    result = kdaug("recipes")
    assert (result.code, result.err) == (0, "")
    rows = {line.split()[0]: line.split()[1:] for line in result.out.splitlines() if line.startswith("  ")}
    assert list(rows) == list(RECIPES)
    for name, named in RECIPES.items():
        published = ["-"] if named.published_error is None else [f"{named.published_error:.1f}", "%"]
        assert rows[name][: len(published) + 1] == [*published, str(named.make().optimization.global_batch)]


def test_words_select_recipes_that_have_all_of_them(kdaug: Callable) -> None:
    result = kdaug("recipes", "--json", "CIFAR-100", "kd", "pyramid")
    selected = [json.loads(line) for line in result.out.splitlines()]
    assert [line["name"] for line in selected] == ["cifar100-pyramidnet272_a200_shakedrop-kd"]
    assert selected[0]["published_error"] == 10.6
    assert selected[0]["gpu_hours"] == pytest.approx(7 * 8_977_711_872 * 50_000 * 1800 / 60e12 / 3600, rel=1e-3)


def test_words_without_a_match_are_refused(kdaug: Callable) -> None:
    result = kdaug("recipes", "cifar100", "xyz")
    assert result.code == 2
    assert result.err == (
        "kdaug: no recipe has cifar100 and xyz in its name or description; kdaug recipes lists all recipes\n"
    )


@pytest.mark.parametrize("name", SOME)
def test_show_prints_yaml_with_the_source(kdaug: Callable, name: str) -> None:
    result = kdaug("recipes", "show", name)
    assert (result.code, result.err) == (0, "")
    assert from_yaml(result.out) == named_recipe(name)
    comments = [line[1:].strip() for line in result.out.splitlines() if line.startswith("#")]
    assert comments == [line.strip() for line in RECIPES[name].documentation.splitlines()]


def test_check_reports_passed_and_failed_smoke_tests(kdaug: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = smoke_test_module.SmokeTestResult(1.25, 0.5, 3 << 29, 2.5)
    monkeypatch.setattr(smoke_test_module, "smoke_test_in_subprocess", lambda *_: passed)
    result = kdaug("recipes", "--check", "bundled")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[1].split() == ["demo", "1.2", "s", "0.5", "s", "1.5", "GiB", "2.50"]
    assert "the smoke tests of all 1 recipes passed" in result.out
    assert json.loads(kdaug("recipes", "--check", "bundled", "--json").out) == {"name": "demo", **vars(passed)}

    monkeypatch.setattr(smoke_test_module, "smoke_test_in_subprocess", lambda *_: "InputError: no such thing")
    result = kdaug("recipes", "--check", "demo", "bundled")
    assert result.code == 1
    assert "FAILED: InputError: no such thing" in result.out
    assert result.err == "kdaug: the smoke test of 1 of 1 recipes failed\n"
