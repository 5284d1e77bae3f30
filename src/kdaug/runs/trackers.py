"""Experiment trackers, which kdaug only writes to: TensorBoard; wandb, MLflow and trackio if the recipe names them."""

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
from kdaug.errors import InputError, one_line
from kdaug.storage import atomic_write

_logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Receives named metrics at each step, in ascending order of steps."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Logs metrics such as {"step/loss": 1.2, "step/learning_rate": 0.1}."""
        ...

    def close(self) -> None:
        """Sends what is still buffered and ends the tracker's run."""
        ...


class TensorBoard:
    """Event files in `folder`. Events of steps after `first_step` from before a resume are ignored."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class FailSafeTracker:
    """A tracker that is disabled with a warning if it fails: an unreachable server must not end a run.

    log, close: see `Tracker`.
    """

    def __init__(self, name: str, log: Callable[[int, dict[str, float]], None], close: Callable[[], None]) -> None:
        self._name, self._log, self._close = name, log, close
        self._is_disabled = False

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._attempt(lambda: self._log(step, metrics))

    def close(self) -> None:
        self._attempt(self._close)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._is_disabled:
            return
        try:
            action()
        except Exception as error:  # the tracker's library may raise anything
            self._is_disabled = True
            _logger.warning(f"tracker {self._name} failed and is disabled: {one_line(error)}")


def start_wandb(folder: Path, recipe: dict[str, Any]) -> Tracker:
    """A Weights & Biases run, in project `kdaug` or WANDB_PROJECT, resumed under the same id."""
    run_id = _persistent_id(folder / "wandb.json", lambda: uuid4().hex)
    options = {"project": os.environ.get("WANDB_PROJECT", "kdaug"), "name": folder.name, "id": run_id}
    run = _library("wandb").init(**options, dir=str(folder), config=recipe, resume="allow")
    return FailSafeTracker("wandb", lambda step, metrics: run.log(metrics, step=step), run.finish)


def start_trackio(folder: Path, recipe: dict[str, Any]) -> Tracker:
    """A trackio run, in project `kdaug` or TRACKIO_PROJECT, resumed under the same name."""
    name = _persistent_id(folder / "trackio.json", lambda: f"{folder.name}-{uuid4().hex[:8]}")
    project = os.environ.get("TRACKIO_PROJECT", "kdaug")
    run = _library("trackio").init(project=project, name=name, config=recipe, resume="allow")
    return FailSafeTracker("trackio", lambda step, metrics: run.log(metrics, step=step), run.finish)


def start_mlflow(folder: Path, recipe: dict[str, Any]) -> Tracker:
    """An MLflow run at MLFLOW_TRACKING_URI; resumed under the same id."""
    client = _library("mlflow").tracking.MlflowClient()

    def create_run() -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "kdaug")
        experiment = client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
        new: str = client.create_run(experiment_id, run_name=folder.name).info.run_id
        for part, settings in recipe.items():
            for key, value in settings.items():
                client.log_param(new, f"{part}.{key}", value)
        return new

    def log(step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            client.log_metric(run_id, name, value, step=step)

    run_id = _persistent_id(folder / "mlflow.json", create_run)
    return FailSafeTracker("mlflow", log, lambda: client.set_terminated(run_id))


def _persistent_id(file: Path, create: Callable[[], str]) -> str:
    """The tracker's id of the run, stored in the run directory so that a resumed run uses it again."""
    if file.is_file():
        return str(json.loads(file.read_text())["run_id"])
    run_id = create()
    atomic_write(file, json.dumps({"run_id": run_id}))
    return run_id


_TRACKERS = {"wandb": start_wandb, "mlflow": start_mlflow, "trackio": start_trackio}


def check_trackers(names: Sequence[config.TrackerName]) -> None:
    """Raises InputError if one of the trackers is not installed."""
    for name in names:
        _library(name)


def open_trackers(names: Sequence[config.TrackerName], folder: Path, recipe: dict[str, Any]) -> list[Tracker]:
    """The trackers `names` for the run in `folder`. Raises InputError if one cannot be opened."""
    opened = list[Tracker]()
    for name in names:
        try:
            opened.append(_TRACKERS[name](folder, recipe))
        except Exception as error:  # the tracker's library may raise anything
            for tracker in opened:
                tracker.close()
            raise InputError(f"run.trackers {name} cannot be opened: {one_line(error)}") from None
    return opened


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"run.trackers: {name} is not installed", "pip install 'kdaug[trackers]'") from None
