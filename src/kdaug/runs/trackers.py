"""Experiment trackers, which kdaug only writes: TensorBoard; wandb, MLflow and trackio if the recipe names them."""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from uuid import uuid4

from torch.utils.tensorboard import SummaryWriter

from kdaug import config
from kdaug.errors import InputError
from kdaug.storage import atomic_write

_logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Receives named figures at each step, in ascending order of steps."""

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Logs figures such as {"step/loss": 1.2, "step/learning_rate": 0.1}."""
        ...

    def close(self) -> None:
        """Sends what is still buffered and ends the tracker's run."""
        ...


class TensorBoard:
    """Event files in `folder`. Events of steps after `first_step` from before a resume are ignored."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class WandbRun:
    """A run of wandb, or of trackio, which has the same interface."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


def start_wandb(folder: Path, recipe: dict[str, Any]) -> WandbRun:
    """A Weights & Biases run, in project `kdaug` or WANDB_PROJECT, resumed under the same id."""
    run_id = _persistent_id(folder / "wandb.json", lambda: uuid4().hex)
    options = {"project": os.environ.get("WANDB_PROJECT", "kdaug"), "name": folder.name, "id": run_id}
    return WandbRun(_library("wandb").init(**options, dir=str(folder), config=recipe, resume="allow"))


def start_trackio(folder: Path, recipe: dict[str, Any]) -> WandbRun:
    """A trackio run, in project `kdaug` or TRACKIO_PROJECT, resumed under the same name."""
    name = _persistent_id(folder / "trackio.json", lambda: f"{folder.name}-{uuid4().hex[:8]}")
    project = os.environ.get("TRACKIO_PROJECT", "kdaug")
    return WandbRun(_library("trackio").init(project=project, name=name, config=recipe, resume="allow"))


class Mlflow:
    """An MLflow run at MLFLOW_TRACKING_URI; resumed under the same id."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self._client = _library("mlflow").tracking.MlflowClient()
        self._id = _persistent_id(folder / "mlflow.json", lambda: self._create(folder.name, recipe))

    def _create(self, run: str, recipe: dict[str, Any]) -> str:
        """The id of a new run."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "kdaug")
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(name)
        new: str = self._client.create_run(experiment_id, run_name=run).info.run_id
        for part, settings in recipe.items():
            for key, value in settings.items():
                self._client.log_param(new, f"{part}.{key}", value)
        return new

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


def _persistent_id(file: Path, create: Callable[[], str]) -> str:
    """The tracker's id of the run, stored in the run directory so that a resumed run uses it again."""
    if file.is_file():
        kept: str = json.loads(file.read_text())["run_id"]
        return kept
    new = create()
    atomic_write(file, json.dumps({"run_id": new}))
    return new


class FailSafeTracker:
    """Wraps a tracker. If it fails, it is disabled with a warning: an unreachable server must not end a run."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._is_disabled = False

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._attempt(lambda: self._tracker.log(step, figures))

    def close(self) -> None:
        self._attempt(self._tracker.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._is_disabled:
            return
        try:
            action()
        except Exception as error:  # the tracker's library may raise anything
            self._is_disabled = True
            _logger.warning(f"tracker {self._name} failed and is disabled: {_one_line(error)}")


_TRACKERS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {
    "wandb": start_wandb, "mlflow": Mlflow, "trackio": start_trackio,
}  # fmt: skip


def check_trackers(names: Sequence[config.Tracker]) -> None:
    """Raises InputError if one of the trackers is not installed."""
    for name in names:
        _library(name)


def open_trackers(names: Sequence[config.Tracker], folder: Path, recipe: dict[str, Any]) -> list[Tracker]:
    """The trackers `names` for the run in `folder`. Raises InputError if one cannot be opened."""
    opened = list[Tracker]()
    for name in names:
        try:
            opened.append(FailSafeTracker(name, _TRACKERS[name](folder, recipe)))
        except Exception as error:  # the tracker's library may raise anything
            for tracker in opened:
                tracker.close()
            raise InputError(f"run.trackers {name} cannot be opened: {_one_line(error)}") from None
    return opened


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"run.trackers: {name} is not installed", "pip install 'kdaug[trackers]'") from None
