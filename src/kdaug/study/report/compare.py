"""Finished runs set side by side: what varies between them, means over seeds, paired gains."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdaug.config import Recipe, read_recipe
from kdaug.errors import InputError
from kdaug.runs import RunDirectory, read_environment, read_metrics, result_settings
from kdaug.supervision.label_store import read_manifest

SEEDS = ("run.seed", "views.seed")
_CONFIDENCE = 0.95
_MAGNITUDE = r"-m(\d+(?:\.\d+)?)(?=@|$)"
"""In the specification of a single policy, such as randaugment-n2-m9@tf-efficientnet."""


@dataclass(frozen=True)
class FinishedRun:
    """What a run directory says at its end.

    settings: all that the outcome depends on, by dotted name; not where a teacher's answers were read. Among them
    data.content, a digest of the images (None if the run does not say), so that others are never averaged. top1_error,
    top5_error: of the final weights, best_top1_error: the lowest on the way, all in percent of `images` images, which
    are `held_out` of the training images or else the test images; None if the run does not say how many. seconds: of
    all stretches of training.
    """

    path: Path
    settings: dict[str, Any]
    top1_error: float
    top5_error: float
    best_top1_error: float
    images: int | None
    held_out: bool
    seconds: float
    environment: dict[str, Any]

    @property
    def seeds(self) -> tuple[Any, ...]:
        """By which runs of two groups are paired."""
        return tuple(self.settings[name] for name in SEEDS)


def read_finished_run(path: Path) -> FinishedRun | None:
    """None for a run that is not finished; InputError for one that is damaged."""
    directory = RunDirectory(path)
    end = next((line for line in read_metrics(path) if line["kind"] == "end"), None)
    if end is None:
        return None
    recipe, environment = read_recipe(directory.recipe), read_environment(directory)
    return FinishedRun(
        path,
        _settings(recipe) | {"data.content": environment.get("data")},
        end["top1_error"],
        end["top5_error"],
        end["best_top1_error"],
        end.get("images"),
        recipe.data.holdout > 0,
        end["seconds"],
        environment,
    )


def _settings(recipe: Recipe) -> dict[str, Any]:
    """All that counts. What a recipe says of a teacher it does not have does not: it is None.

    The magnitude stands beside the policy, not in its specification, so that it is a number.
    """
    settings = {name: value for name, value in result_settings(recipe).items() if name != "teacher.labels"}
    magnitude = re.search(_MAGNITUDE, recipe.views.policy)
    if magnitude is not None:
        settings["views.policy"] = re.sub(_MAGNITUDE, "", recipe.views.policy, count=1)
        settings["views.magnitude"] = float(magnitude[1])
    if recipe.teacher.source != "none":
        return settings
    if recipe.teacher.labels is not None:
        return settings | {"teacher.source": _source_of(Path(recipe.teacher.labels))}
    return settings | {name: None for name in settings if is_teacher_setting(name)}


def _source_of(store: Path) -> str:
    """Whose labels these are, as far as can be told."""
    try:
        return f"labels of {read_manifest(store).teacher[:8]}"
    except InputError:
        return f"labels in {store}"


def is_teacher_setting(name: str) -> bool:
    """Whether a setting counts only where there is a teacher."""
    kept = ("teacher.source", "supervision.label_smoothing")
    return name.startswith(("teacher.", "supervision.")) and name not in kept


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ by their seeds alone. varied: its values of what varies between groups."""

    varied: dict[str, Any]
    runs: tuple[FinishedRun, ...]

    @property
    def mean(self) -> float:
        """Top-1 error in percent, mean over the runs."""
        return statistics.fmean(run.top1_error for run in self.runs)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over the runs, in points; None for one."""
        return statistics.stdev(run.top1_error for run in self.runs) if len(self.runs) > 1 else None


def group_runs(runs: Iterable[FinishedRun]) -> list[Group]:
    """The runs by recipe, in the order of what varies. InputError for two runs of one recipe and seed."""
    runs = list(runs)
    names = varying_settings(runs)
    found = dict[str, list[FinishedRun]]()
    for run in runs:
        found.setdefault(repr([run.settings.get(name) for name in names]), []).append(run)
    for together in found.values():
        by_seed = dict[tuple[Any, ...], FinishedRun]()
        for run in together:
            if run.seeds in by_seed:
                raise InputError(f"{by_seed[run.seeds].path} and {run.path} are of one recipe and seed; leave one out")
            by_seed[run.seeds] = run
    groups = [Group({name: each[0].settings.get(name) for name in names}, tuple(each)) for each in found.values()]
    return sorted(groups, key=lambda group: [_in_order(value) for value in group.varied.values()])


def varying_settings(runs: Sequence[FinishedRun]) -> list[str]:
    """The settings that differ between runs, seeds left out, by name."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if name not in SEEDS and len(_values(name, runs)) > 1]


def common_settings(groups: Sequence[Group]) -> dict[str, Any]:
    """The settings that do not vary between groups, seeds left out; a teacher's as in the runs that have one."""
    settings = dict[str, Any]()
    for run in (run for group in groups for run in group.runs):
        settings |= {name: value for name, value in run.settings.items() if value is not None or name not in settings}
    return {name: value for name, value in settings.items() if name not in {*groups[0].varied, *SEEDS}}


def _values(name: str, runs: Sequence[FinishedRun]) -> set[str]:
    """Of a setting that concerns teachers, in the runs that have one."""
    given = [run.settings.get(name) for run in runs]
    return {repr(value) for value in given if value is not None or not is_teacher_setting(name)}


def _in_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then all else by its text."""
    return not is_number(value), float(value) if is_number(value) else 0.0, str(value)


def is_number(value: Any) -> bool:
    """Whether a setting's value has a place on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Gain:
    """By how much fewer errors a group makes than its baseline, in points, over `pairs` pairs of runs of equal seeds.

    half_width: of the 95 % confidence interval of the mean, by Student's t; None for one pair. baseline: mean error of
    the baseline's runs that have a pair. of_all: whether no run of either is without a pair.
    """

    mean: float
    half_width: float | None
    pairs: int
    baseline: float
    of_all: bool


def gain_over(baseline: Group, group: Group) -> Gain | None:
    """None if no seed is in both."""
    errors = {run.seeds: run.top1_error for run in baseline.runs}
    paired = [(errors[run.seeds], run.top1_error) for run in group.runs if run.seeds in errors]
    if not paired:
        return None
    gains = [before - after for before, after in paired]
    return Gain(
        statistics.fmean(gains),
        _half_width(gains),
        len(gains),
        statistics.fmean(before for before, _ in paired),
        len(gains) == len(group.runs) == len(baseline.runs),
    )


def _half_width(values: Sequence[float]) -> float | None:
    if len(values) == 1:
        return None
    from scipy.stats import t  # takes a moment to load

    return float(t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5)


def find_baseline(group: Group, groups: Sequence[Group], against: Mapping[str, Any]) -> Group | None:
    """The group that has the values `against` and agrees with `group` in all else that varies; None if it is it.

    One without a teacher agrees with any in what concerns teachers.
    """
    wanted = {**group.varied, **against}

    def is_it(other: Group) -> bool:
        return other is not group and all(
            other.varied[name] == value or (other.varied[name] is None and is_teacher_setting(name))
            for name, value in wanted.items()
        )

    return next(filter(is_it, groups), None)


def default_baseline(groups: Sequence[Group]) -> dict[str, Any]:
    """What gains are over unless somebody says otherwise: no teacher, or else no weight for it, if either varies."""
    for name, value in (("teacher.source", "none"), ("supervision.weight", 0.0)):
        if any(group.varied.get(name) == value for group in groups):
            return {name: value}
    return {}
