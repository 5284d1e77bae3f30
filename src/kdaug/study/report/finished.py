"""Finished runs as reports need them: their settings, errors and environment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdaug.config import Data, Recipe, read_recipe
from kdaug.config.datasets import ARRAY_DATASETS
from kdaug.errors import InputError
from kdaug.runs import RunDirectory, find_runs, read_environment, read_metrics, result_settings
from kdaug.study.sweep import read_failures
from kdaug.supervision.manifest import read_manifest

HELD_OUT = "held-out"
"""`FinishedRun.measured_on` of training images that were held out to choose settings."""
SEEDS = ("run.seed", "views.seed")
VIEW_MEASURES = {
    "view_error": "error, %",
    "view_calibration_error": "calibration error, %",
    "view_past_recognition": "past recognition, %",
    "view_agreement": "agreement with teacher, %",
    "view_agreement_weak": "of the weak third, %",
    "view_agreement_medium": "of the medium third, %",
    "view_agreement_strong": "of the strong third, %",
}
"""The measures on fixed views in metrics.jsonl (see `kdaug.training.view_measures`), and how tables call them."""
_MAGNITUDE = r"-m(\d+(?:\.\d+)?)(?=@|$)"
"""In the specification of a policy, such as randaugment-n2-m9@tf-efficientnet."""


@dataclass(frozen=True)
class FinishedRun:
    """The results of a finished run.

    settings: all that the result depends on, by dotted name, and data.content, a digest of the images (None if not
    known). top1_error, top5_error: of the final weights. best_top1_error: the lowest error during training. All errors
    are in percent of `images` images (None if not known), which `measured_on` describes. train_error: of the final
    weights on the unaugmented training images, in percent; None if it was not measured. seconds: total training time.
    environment: content of environment.json. views: the measures of the final weights on the fixed views, by their
    names in metrics.jsonl, in percent.
    """

    path: Path
    settings: dict[str, Any]
    top1_error: float
    top5_error: float
    best_top1_error: float
    images: int | None
    measured_on: str
    train_error: float | None
    seconds: float
    environment: dict[str, Any]
    views: dict[str, float]

    @property
    def seeds(self) -> tuple[Any, ...]:
        """The values of the settings in SEEDS."""
        return tuple(self.settings[name] for name in SEEDS)


def find_finished_runs(folders: Sequence[Path]) -> tuple[list[FinishedRun], list[str]]:
    """The finished runs at or below `folders`, and for every other run the reason why it is left out.

    Teachers that were trained for other runs (in a folder teachers/) are left out, unless `folders` names them or their
    folder. Raises InputError for a folder that does not exist, and if there is no finished run.
    """
    finished, left_out = dict[Path, FinishedRun](), list[str]()
    for folder in folders:
        statuses = list(find_runs(folder))
        sweeps = sorted({folder, *(status.path.parent for status in statuses if status.path != folder)})
        failures = {sweep / name: reason for sweep in sweeps for name, reason in read_failures(sweep).items()}
        for status in statuses:
            if status.path.parent.name == "teachers" and folder not in (status.path, status.path.parent):
                continue
            try:
                run = read_finished_run(status.path)
            except InputError as error:
                left_out.append(str(error))
                continue
            if run is not None:
                finished[status.path.resolve()] = run
            elif status.path not in failures:
                left_out.append(f"{status.path} is not finished")
        left_out += [f"{path} failed: {reason}" for path, reason in failures.items() if path.resolve() not in finished]
    if not finished:
        names = ", ".join(map(str, folders))
        raise InputError("; ".join([f"there is no finished run below {names}", *left_out]))
    return list(finished.values()), left_out


def read_finished_run(path: Path) -> FinishedRun | None:
    """The run at `path`, or None if it is not finished. Raises InputError if its files are damaged."""
    directory = RunDirectory(path)
    lines = read_metrics(path)
    end = next((line for line in lines if line["kind"] == "end"), None)
    if end is None:
        return None
    recipe, environment = read_recipe(directory.recipe), read_environment(directory)
    last_evaluation: dict[str, Any] = next((line for line in reversed(lines) if line["kind"] == "eval"), {})
    return FinishedRun(
        path,
        _comparable_settings(recipe) | {"data.content": environment.get("data")},
        end["top1_error"],
        end["top5_error"],
        end["best_top1_error"],
        end.get("images"),
        _describe_measured(recipe.data),
        last_evaluation.get("train_error"),
        end["seconds"],
        environment,
        {name: value for name, value in last_evaluation.items() if name in VIEW_MEASURES},
    )


def _describe_measured(data: Data) -> str:
    """The images that errors are measured on, such as "test"."""
    if data.holdout and not data.measure_unused:
        return HELD_OUT
    known = ARRAY_DATASETS.get(data.name)
    own = "test" if known is not None and known.validates_on_test else "validation"
    return f"{own} images and unused training" if data.measure_unused else own


def _comparable_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that the result depends on.

    The magnitude is a setting of its own, not a part of the policy. Stored labels count as the teacher they are from.
    Without a teacher, settings that concern one are None.
    """
    settings = {name: value for name, value in result_settings(recipe).items() if name != "teacher.labels"}
    magnitude = re.search(_MAGNITUDE, recipe.views.policy)
    if magnitude is not None:
        settings["views.policy"] = re.sub(_MAGNITUDE, "", recipe.views.policy, count=1)
        settings["views.magnitude"] = float(magnitude[1])
    if recipe.teacher.source != "none":
        return settings
    if recipe.teacher.labels is not None:
        return settings | {"teacher.source": _teacher_of_store(Path(recipe.teacher.labels))}
    return settings | {name: None for name in settings if is_teacher_setting(name)}


def _teacher_of_store(store: Path) -> str:
    """Names the teacher of a label store by its digest, or by the store's path if the manifest cannot be read."""
    try:
        return f"labels of {read_manifest(store).teacher[:8]}"
    except InputError:
        return f"labels in {store}"


def is_teacher_setting(name: str) -> bool:
    """Whether a setting has an effect only with a teacher."""
    exceptions = ("teacher.source", "supervision.label_smoothing", "supervision.visible_power")
    return name.startswith(("teacher.", "supervision.")) and name not in exceptions
