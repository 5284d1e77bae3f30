"""The notes of a report: what a reader must know about the errors, the settings and the machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdaug.config import read_recipe
from kdaug.errors import InputError
from kdaug.study.report.compare import Group, common_settings
from kdaug.study.report.finished import HELD_OUT, FinishedRun, read_finished_run
from kdaug.study.report.tables import format_settings
from kdaug.training.resolve import teacher_run_names

_MAIN_SETTINGS = (
    "data.name", "data.train_images", "student.name", "optimization.epochs", "optimization.clean_epochs",
    "views.policy", "views.magnitude", "teacher.source", "supervision.weight", "supervision.k",
    "supervision.temperature", "supervision.reading",
)  # fmt: skip
_ENVIRONMENT = ("device", "processor", "cores", "processes", "threads", "precision", "packages")


def report_notes(groups: Sequence[Group], left_out: Sequence[str]) -> list[str]:
    """Notes on the images, the common settings, the teachers, the machines and the runs left out, as sentences."""
    runs = [run for group in groups for run in group.runs]
    common = common_settings(groups)
    settings = format_settings({name: common[name] for name in _MAIN_SETTINGS if name in common})
    return [
        "Errors are top-1 errors of the final weights, in percent. ± is the standard deviation over seeds, [ ] a 95 % "
        "confidence interval.",
        *_describe_images(groups, runs),
        *_describe_unlabelled(runs),
        f"Settings common to all runs: {settings}.",
        *describe_teachers(runs),
        *describe_machines(runs),
        *(f"Left out: {reason}." for reason in left_out),
    ]


def _describe_images(groups: Sequence[Group], runs: Sequence[FinishedRun]) -> list[str]:
    """Which images errors are measured on, how many, and whether settings may be chosen by them."""
    counts = ", ".join(sorted({f"{run.images:,}" if run.images else "an unknown number of" for run in runs}))
    kinds = {run.measured_on for run in runs}
    measured = f"Errors are measured on {counts} {' and '.join(sorted(kinds))} images."
    if kinds != {HELD_OUT}:
        measured += (
            " Do not choose settings by them: the lowest of several errors is too optimistic. data.holdout measures "
            "errors on training images held out from training, for choosing settings."
        )
    if len(kinds) > 1 or any(name in groups[0].varied for name in ("data.name", "data.content", "data.holdout")):
        return [measured, "Some runs are measured on different images. Do not compare their errors."]
    return [measured]


def _describe_unlabelled(runs: Sequence[FinishedRun]) -> list[str]:
    """How many images without labels the runs had, if any had some."""
    counts = sorted({run.environment.get("unlabelled_images", 0) for run in runs})
    return (
        [f"Images without labels, in addition: {', '.join(f'{count:,}' for count in counts)}."] if any(counts) else []
    )


def describe_teachers(runs: Sequence[FinishedRun]) -> list[str]:
    """The error of each teacher that was trained for the runs and is still in the folder teachers/ next to them."""
    directories = dict[Path, None]()
    for run in runs:
        if run.settings["teacher.source"] == "train":
            recipe = read_recipe(run.path / "recipe.yaml")
            for name in teacher_run_names(recipe, run.settings["data.content"]):
                directories[run.path.parent / "teachers" / name] = None
    return [_describe_teacher(directory) for directory in directories if (directory / "recipe.yaml").is_file()]


def _describe_teacher(directory: Path) -> str:
    try:
        run = read_finished_run(directory)
    except InputError as error:
        return f"Teacher {directory.name} cannot be read: {error}."
    state = "is not finished" if run is None else f"has an error of {run.top1_error:.2f} %"
    return f"Teacher {directory.name} {state}."


def describe_machines(runs: Sequence[FinishedRun]) -> list[str]:
    """A note on the seeds and the environment common to all runs, and one for each part in which they differ."""
    seeds = sorted({run.settings["run.seed"] for run in runs})
    common, differences = [f"seed {', '.join(map(str, seeds))}"], list[str]()
    for name in _ENVIRONMENT:
        values = sorted({_format(value) for run in runs for value in _environment_values(name, run.environment)})
        if len(values) > 1:
            differences.append(f"The runs differ in {name}: {'; '.join(values)}.")
        else:
            common.append(f"{name} {values[0]}")
    return [f"All runs: {'; '.join(common)}.", *differences]


def _environment_values(name: str, environment: Mapping[str, Any]) -> list[Any]:
    """The value when the run began, and those after it resumed in another environment."""
    return [environment.get(name), *(change[name] for change in environment.get("resumed", []) if name in change)]


def _format(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {version}" for name, version in value.items())
    return "unknown" if value is None else str(value)
