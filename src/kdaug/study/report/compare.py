"""Comparison of finished runs: groups that differ in seeds only, means over seeds, and paired gains."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kdaug.errors import InputError
from kdaug.study.report.finished import SEEDS, FinishedRun, is_teacher_setting

_CONFIDENCE = 0.95
_MAY_BE_NONE = ("supervision.k", "supervision.mass", "teacher.folds")
"""Settings that have an effect only with a teacher, and of which None is one of several choices."""


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in their seeds only. varied: their values of the settings that vary."""

    varied: dict[str, Any]
    runs: tuple[FinishedRun, ...]

    @property
    def mean(self) -> float:
        """Mean top-1 error over the runs, in percent."""
        return statistics.fmean(run.top1_error for run in self.runs)

    @property
    def train_error(self) -> float | None:
        """Mean error on the training images over the runs, in percent; None if one of them did not measure it."""
        errors = [run.train_error for run in self.runs if run.train_error is not None]
        return statistics.fmean(errors) if len(errors) == len(self.runs) else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the top-1 error over the runs, in points; None for one run."""
        return statistics.stdev(run.top1_error for run in self.runs) if len(self.runs) > 1 else None


def group_runs(runs: Iterable[FinishedRun]) -> list[Group]:
    """The runs grouped by recipe, sorted by the settings that vary.

    Raises InputError for two runs with the same recipe and seeds.
    """
    runs = list(runs)
    names = varying_settings(runs)
    members = dict[str, list[FinishedRun]]()
    for run in runs:
        members.setdefault(repr([_value(name, run) for name in names]), []).append(run)
    for group in members.values():
        by_seeds = dict[tuple[Any, ...], FinishedRun]()
        for run in group:
            if run.seeds in by_seeds:
                first = by_seeds[run.seeds].path
                raise InputError(f"{first} and {run.path} have the same recipe and seeds", "leave one of them out")
            by_seeds[run.seeds] = run
    groups = [Group({name: _value(name, group[0]) for name in names}, tuple(group)) for group in members.values()]
    return sorted(groups, key=lambda group: [_sort_key(value) for value in group.varied.values()])


def varying_settings(runs: Sequence[FinishedRun]) -> list[str]:
    """Names of the settings that differ between runs, without the seeds."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if name not in SEEDS and len(_values(name, runs)) > 1]


def common_settings(groups: Sequence[Group]) -> dict[str, Any]:
    """The settings that are equal in all runs, without the seeds. Teacher settings: in all runs with a teacher."""
    settings = dict[str, Any]()
    for run in (run for group in groups for run in group.runs):
        settings |= {name: value for name, value in run.settings.items() if value is not None or name not in settings}
    return {name: value for name, value in settings.items() if name not in {*groups[0].varied, *SEEDS}}


def _values(name: str, runs: Sequence[FinishedRun]) -> set[str]:
    """The values of a setting; of a teacher setting, only those of runs with a teacher."""
    values = [_value(name, run) for run in runs]
    return {repr(value) for value in values if value is not None or not is_teacher_setting(name)}


def _value(name: str, run: FinishedRun) -> Any:
    """The value of a setting; "None" for those in _MAY_BE_NONE, because None says that the run has no teacher."""
    value = run.settings.get(name)
    has_teacher = run.settings.get("teacher.source", "none") != "none"
    return "None" if value is None and name in _MAY_BE_NONE and has_teacher else value


def _sort_key(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then all other values by their text."""
    return not is_number(value), float(value) if is_number(value) else 0.0, str(value)


def is_number(value: Any) -> bool:
    """Whether a setting's value is an int or float (a bool is not)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Gain:
    """How much lower the error of a group is than that of its baseline, in points, over runs paired by seeds.

    mean: over `pairs` pairs. half_width: of the 95 % confidence interval by Student's t; None for one pair. baseline:
    mean error of the baseline's paired runs. of_all: whether every run of both groups has a pair.
    """

    mean: float
    half_width: float | None
    pairs: int
    baseline: float
    of_all: bool


def gain_over(baseline: Group, group: Group) -> Gain | None:
    """The gain of `group` over `baseline`; None if they have no seeds in common."""
    errors = {run.seeds: run.top1_error for run in baseline.runs}
    pairs = [(errors[run.seeds], run.top1_error) for run in group.runs if run.seeds in errors]
    if not pairs:
        return None
    gains = [before - after for before, after in pairs]
    return Gain(
        statistics.fmean(gains),
        _half_width(gains),
        len(gains),
        statistics.fmean(before for before, _ in pairs),
        len(gains) == len(group.runs) == len(baseline.runs),
    )


def _half_width(values: Sequence[float]) -> float | None:
    if len(values) == 1:
        return None
    from scipy.stats import t  # slow to import

    return float(t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5)


def find_gain(group: Group, groups: Sequence[Group], against: Mapping[str, Any]) -> Gain | None:
    """The gain of `group` over its baseline among `groups`; None if it has no baseline."""
    baseline = find_baseline(group, groups, against) if against else None
    return None if baseline is None else gain_over(baseline, group)


def find_baseline(group: Group, groups: Sequence[Group], against: Mapping[str, Any]) -> Group | None:
    """The group with the values `against` and otherwise the settings of `group`; None if there is no other such group.

    A group without a teacher matches all values of teacher settings.
    """
    wanted = {**group.varied, **against}

    def matches(other: Group) -> bool:
        return other is not group and all(
            other.varied[name] == value or (other.varied[name] is None and is_teacher_setting(name))
            for name, value in wanted.items()
        )

    return next(filter(matches, groups), None)


def default_baseline(groups: Sequence[Group]) -> dict[str, Any]:
    """The baseline if none is chosen: no teacher, else a weight of 0, whichever occurs; empty if neither does."""
    for name, value in (("teacher.source", "none"), ("supervision.weight", 0.0)):
        if any(group.varied.get(name) == value for group in groups):
            return {name: value}
    return {}


def check_baseline(against: Mapping[str, Any], groups: Sequence[Group]) -> None:
    """Raises InputError if a setting in `against` does not vary between `groups`, or no group has its value."""
    for name, value in against.items():
        if name not in groups[0].varied:
            varying = ", ".join(groups[0].varied) or "none"
            raise InputError(f"{name} does not vary between these runs; settings that vary: {varying}")
        if all(group.varied[name] != value for group in groups):
            raise InputError(f"no run has {name}={value}")
