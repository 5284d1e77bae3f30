"""Comparisons: recipes are told apart and never averaged together, gains are paired, intervals are Student's."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdaug.config import with_settings
from kdaug.errors import InputError
from kdaug.recipes import named_recipe
from kdaug.study.report.compare import (
    default_baseline,
    find_baseline,
    gain_over,
    group_runs,
    read_finished_run,
    varying_settings,
)

Made = Callable[..., Path]
NO_TEACHER = {"teacher.source": "none"}


@pytest.fixture
def made(tmp_path: Path, leave: Callable[..., None]) -> Made:
    """A run of the demo recipe with this error and these settings."""
    count = iter(range(1000))

    def make(error: float, settings: dict[str, Any], finished: bool = True) -> Path:
        path = tmp_path / f"run{next(count)}"
        leave(path, with_settings(named_recipe("demo"), settings, "test"), error, finished)
        return path

    return make


def grouped(*paths: Path) -> Any:
    return group_runs([run for path in paths if (run := read_finished_run(path))])


def test_seeds_are_averaged_and_nothing_else_is(made: Made) -> None:
    errors = {0.5: (10.0, 12.0, 14.0), 1.0: (9.0, 9.5, 10.0)}
    paths = [
        made(error, {"supervision.weight": weight, "run.seed": seed})
        for weight in errors
        for seed, error in enumerate(errors[weight])
    ]
    first, second = grouped(*paths)
    assert (first.varied, second.varied) == ({"supervision.weight": 0.5}, {"supervision.weight": 1.0})
    assert (first.mean, first.deviation) == (12.0, pytest.approx(2.0))
    assert (second.mean, second.deviation) == (9.5, pytest.approx(0.5))


def test_gains_are_paired_by_seed_with_students_interval(made: Made) -> None:
    without = [made(error, {**NO_TEACHER, "run.seed": seed}) for seed, error in enumerate((20.0, 25.0, 30.0, 99.0))]
    taught = [made(error, {"run.seed": seed}) for seed, error in enumerate((19.0, 23.0, 27.0))]
    groups = grouped(*without, *taught)
    baseline, group = groups
    assert default_baseline(groups) == NO_TEACHER
    assert find_baseline(group, groups, NO_TEACHER) is baseline
    assert find_baseline(baseline, groups, NO_TEACHER) is None
    gain = gain_over(baseline, group)
    assert gain is not None
    assert (gain.mean, gain.pairs) == (2.0, 3)
    assert gain.half_width == pytest.approx(
        4.302653 / math.sqrt(3), rel=1e-6
    )  # t(0.975, 2) from a printed table; s = 1


def test_one_pair_has_no_interval_and_no_pair_no_gain(made: Made) -> None:
    groups = grouped(made(20.0, {**NO_TEACHER, "run.seed": 1}), made(18.0, {"run.seed": 1}))
    assert gain_over(*groups).half_width is None
    apart = grouped(made(20.0, {**NO_TEACHER, "run.seed": 1}), made(18.0, {"run.seed": 2}))
    assert gain_over(*apart) is None


def test_the_baseline_agrees_in_all_else(made: Made) -> None:
    settings = [
        {"views.magnitude": magnitude, "teacher.source": source, "supervision.k": k}
        for magnitude in (2.0, 5.0)
        for source, ks in (("none", (3,)), ("train", (3, 5)))
        for k in ks
    ]
    groups = grouped(*(made(10.0 + place, each) for place, each in enumerate(settings)))
    assert varying_settings([run for group in groups for run in group.runs]) == [
        "views.magnitude", "teacher.source", "supervision.k",
    ]  # fmt: skip
    for group in groups:
        baseline = find_baseline(group, groups, NO_TEACHER)
        if group.varied["teacher.source"] == "none":
            assert group.varied["supervision.k"] is None, "it has no teacher to ask"
            assert baseline is None
        else:
            assert baseline is not None
            assert baseline.varied["views.magnitude"] == group.varied["views.magnitude"]


def test_numbers_are_in_order_and_the_magnitude_is_one(made: Made) -> None:
    groups = grouped(*(made(10.0, {"views.magnitude": magnitude}) for magnitude in (10.0, 2.0, 0.5)))
    assert [group.varied for group in groups] == [{"views.magnitude": m} for m in (0.5, 2.0, 10.0)]
    policies = ("none", "randaugment-n2-m5@paper-geometric")
    first, second = grouped(*(made(10.0, {"views.policy": policy, **NO_TEACHER}) for policy in policies))
    assert first.varied == {"views.policy": "none", "views.magnitude": None}
    assert second.varied == {"views.policy": "randaugment-n2@paper-geometric", "views.magnitude": 5.0}


def test_stored_labels_are_the_teacher_they_are_of(made: Made) -> None:
    """A sweep's runs read what they could have asked."""
    asked, read = made(10.0, {"run.seed": 0}), made(12.0, {"run.seed": 1, "teacher.labels": "sweep/labels/x"})
    (group,) = grouped(asked, read)
    assert group.mean == 11.0
    alone = made(12.0, {**NO_TEACHER, "teacher.labels": "labels"})
    sources = [group.varied["teacher.source"] for group in grouped(asked, alone, made(9.0, NO_TEACHER))]
    assert sorted(sources) == ["labels in labels", "none", "train"]


def test_a_run_given_twice_is_named(made: Made) -> None:
    with pytest.raises(InputError, match=r"run0 and .*run1 are of one recipe and seed; leave one out"):
        grouped(made(10.0, {}), made(11.0, {}))


def test_only_finished_runs_count(made: Made) -> None:
    assert read_finished_run(made(10.0, {}, finished=False)) is None
    damaged = made(10.0, {})
    (damaged / "environment.json").write_text("{")
    with pytest.raises(InputError, match=r"environment\.json is damaged"):
        read_finished_run(damaged)
