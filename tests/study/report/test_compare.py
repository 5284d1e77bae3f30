"""Comparisons: only seeds are averaged, gains are paired by seed, and intervals are Student's."""

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
    Group,
    default_baseline,
    find_baseline,
    gain_over,
    group_runs,
    varying_settings,
)
from kdaug.study.report.finished import read_finished_run
from kdaug.study.report.tables import format_gain

WriteRun = Callable[..., Path]
NO_TEACHER = {"teacher.source": "none"}


@pytest.fixture
def write_run(tmp_path: Path, write_run_files: Callable[..., None]) -> WriteRun:
    """write_run(error, settings, finished): writes a run of the demo recipe with its own teacher; its directory."""
    count = iter(range(1000))

    def write(error: float, settings: dict[str, Any], finished: bool = True) -> Path:
        path = tmp_path / f"run{next(count)}"
        recipe = with_settings(named_recipe("demo"), {"teacher.source": "train", **settings}, "test")
        write_run_files(path, recipe, error, finished)
        return path

    return write


def read_groups(*paths: Path) -> list[Group]:
    return group_runs([run for path in paths if (run := read_finished_run(path))])


@pytest.mark.parametrize(("name", "value"), [("supervision.k", 5), ("supervision.mass", 0.9), ("teacher.folds", 3)])
def test_none_differs_from_other_values_and_from_no_teacher(write_run: WriteRun, name: str, value: float) -> None:
    whole = {"supervision.k": None, "supervision.reading": "grouped"}
    paths = [write_run(10.0, {**whole, name: each}) for each in (None, value)]
    groups = read_groups(*paths, write_run(12.0, NO_TEACHER))
    by_value = {group.varied[name]: group for group in groups}
    assert set(by_value) == {value, "None", None}
    assert find_baseline(by_value["None"], groups, {"teacher.source": "none"}) is by_value[None]
    assert find_baseline(by_value["None"], groups, {name: value}) is by_value[value]


def test_only_seeds_are_averaged(write_run: WriteRun) -> None:
    errors = {0.5: (10.0, 12.0, 14.0), 1.0: (9.0, 9.5, 10.0)}
    paths = [
        write_run(error, {"supervision.weight": weight, "run.seed": seed})
        for weight in errors
        for seed, error in enumerate(errors[weight])
    ]
    first, second = read_groups(*paths)
    assert (first.varied, second.varied) == ({"supervision.weight": 0.5}, {"supervision.weight": 1.0})
    assert (first.mean, first.deviation) == (12.0, pytest.approx(2.0))
    assert (second.mean, second.deviation) == (9.5, pytest.approx(0.5))


def test_labels_softened_without_a_teacher_are_another_group(write_run: WriteRun) -> None:
    soft = {**NO_TEACHER, "views.crop": "soft"}
    paths = [write_run(20.0, soft), write_run(18.0, {**soft, "supervision.visible_power": 2.0})]
    assert [group.varied for group in read_groups(*paths)] == [
        {"supervision.visible_power": 2.0}, {"supervision.visible_power": None},
    ]  # fmt: skip


def test_gains_are_paired_by_seed_with_t_interval(write_run: WriteRun) -> None:
    without = [
        write_run(error, {**NO_TEACHER, "run.seed": seed}) for seed, error in enumerate((20.0, 25.0, 30.0, 99.0))
    ]
    with_teacher = [write_run(error, {"run.seed": seed}) for seed, error in enumerate((19.0, 23.0, 27.0))]
    groups = read_groups(*without, *with_teacher)
    baseline, group = groups
    assert default_baseline(groups) == NO_TEACHER
    assert find_baseline(group, groups, NO_TEACHER) is baseline
    assert find_baseline(baseline, groups, NO_TEACHER) is None
    gain = gain_over(baseline, group)
    assert gain is not None
    assert (gain.mean, gain.pairs, gain.baseline, gain.of_all) == (2.0, 3, 25.0, False)
    assert format_gain(gain).endswith("] (3 pairs, baseline 25.00)")
    # t(0.975, 2) from a printed table; s = 1
    assert gain.half_width == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_one_pair_has_no_interval_and_no_pairs_no_gain(write_run: WriteRun) -> None:
    groups = read_groups(write_run(20.0, {**NO_TEACHER, "run.seed": 1}), write_run(18.0, {"run.seed": 1}))
    assert gain_over(*groups).half_width is None
    groups = read_groups(write_run(20.0, {**NO_TEACHER, "run.seed": 1}), write_run(18.0, {"run.seed": 2}))
    assert gain_over(*groups) is None


def test_baseline_has_the_same_other_settings(write_run: WriteRun) -> None:
    settings = [
        {"views.magnitude": magnitude, "teacher.source": source, "supervision.k": k}
        for magnitude in (2.0, 5.0)
        for source, ks in (("none", (3,)), ("train", (3, 5)))
        for k in ks
    ]
    groups = read_groups(*(write_run(10.0 + index, each) for index, each in enumerate(settings)))
    assert varying_settings([run for group in groups for run in group.runs]) == [
        "views.magnitude", "teacher.source", "supervision.k",
    ]  # fmt: skip
    for group in groups:
        baseline = find_baseline(group, groups, NO_TEACHER)
        if group.varied["teacher.source"] == "none":
            assert group.varied["supervision.k"] is None, "K has no effect without a teacher"
            assert baseline is None
        else:
            assert baseline is not None
            assert baseline.varied["views.magnitude"] == group.varied["views.magnitude"]


def test_groups_are_sorted_and_magnitude_is_a_number(write_run: WriteRun) -> None:
    groups = read_groups(*(write_run(10.0, {"views.magnitude": magnitude}) for magnitude in (10.0, 2.0, 0.5)))
    assert [group.varied for group in groups] == [{"views.magnitude": m} for m in (0.5, 2.0, 10.0)]
    policies = ("none", "randaugment-n2-m5@paper-geometric")
    first, second = read_groups(*(write_run(10.0, {"views.policy": policy, **NO_TEACHER}) for policy in policies))
    assert first.varied == {"views.policy": "none", "views.magnitude": None}
    assert second.varied == {"views.policy": "randaugment-n2@paper-geometric", "views.magnitude": 5.0}


def test_stored_labels_count_as_their_teacher(write_run: WriteRun) -> None:
    computed = write_run(10.0, {"run.seed": 0})
    (group,) = read_groups(computed, write_run(12.0, {"run.seed": 1, "teacher.labels": "sweep/labels/x"}))
    assert group.mean == 11.0
    store_only = write_run(12.0, {**NO_TEACHER, "teacher.labels": "labels"})
    groups = read_groups(computed, store_only, write_run(9.0, NO_TEACHER))
    assert sorted(group.varied["teacher.source"] for group in groups) == ["labels in labels", "none", "train"]


def test_two_runs_of_one_recipe_and_seed_are_an_error(write_run: WriteRun) -> None:
    with pytest.raises(InputError, match=r"run0 and .*run1 have the same recipe and seeds; leave one of them out"):
        read_groups(write_run(10.0, {}), write_run(11.0, {}))


def test_unfinished_run_is_none_and_damaged_run_an_error(write_run: WriteRun) -> None:
    assert read_finished_run(write_run(10.0, {}, finished=False)) is None
    damaged = write_run(10.0, {})
    (damaged / "environment.json").write_text("{")
    with pytest.raises(InputError, match=r"environment\.json is damaged"):
        read_finished_run(damaged)
