"""Where figures go besides metrics.jsonl: TensorBoard always, wandb, MLflow and trackio if asked. One small protocol.

None of them is read again: metrics.jsonl is the truth, and a tracker that is lost loses nothing.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from uuid import uuid4

from torch.utils.tensorboard import SummaryWriter

from kdaug import config
from kdaug.errors import InputError
from kdaug.storage.atomic import atomic_write


class Tracker(Protocol):
    """Anything that takes named figures at a step, in rising order of steps."""

    def log(self, step: int, figures: dict[str, float]) -> None:
        """Notes figures such as {"step/loss": 1.2, "step/learning_rate": 0.1}."""
        ...

    def close(self) -> None:
        """Everything noted is handed over."""
        ...


class TensorBoard:
    """Event files in `folder`; what they say of steps after `first_step` no longer counts."""

    def __init__(self, folder: Path, first_step: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=first_step + 1)

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A Weights & Biases run, in project `kdaug` unless WANDB_PROJECT says otherwise; resumed under its own id."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self._run = _library("wandb").init(
            project=os.environ.get("WANDB_PROJECT", "kdaug"),
            name=folder.name,
            id=_persistent_id(folder / "wandb.json", lambda: uuid4().hex),
            dir=str(folder),
            config=recipe,
            resume="allow",
        )

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A trackio run, in project `kdaug` unless TRACKIO_PROJECT says otherwise; resumed under its own name."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self._run = _library("trackio").init(
            project=os.environ.get("TRACKIO_PROJECT", "kdaug"),
            name=_persistent_id(folder / "trackio.json", lambda: f"{folder.name}-{uuid4().hex[:8]}"),
            config=recipe,
            resume="allow",
        )

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """An MLflow run at MLFLOW_TRACKING_URI; resumed under its own id."""

    def __init__(self, folder: Path, recipe: dict[str, Any]) -> None:
        self._client = _library("mlflow").tracking.MlflowClient()
        self._id = _persistent_id(folder / "mlflow.json", lambda: self._begun(folder.name, recipe))

    def _begun(self, run: str, recipe: dict[str, Any]) -> str:
        """The id of a new run."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "kdaug")
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        new: str = self._client.create_run(place, run_name=run).info.run_id
        for part, settings in recipe.items():
            for key, value in settings.items():
                self._client.log_param(new, f"{part}.{key}", value)
        return new

    def log(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


def _persistent_id(note: Path, begin: Callable[[], str]) -> str:
    """The tracker's id of the run, kept in the run directory so that a resumed run goes on under it."""
    if note.is_file():
        kept: str = json.loads(note.read_text())["run_id"]
        return kept
    new = begin()
    atomic_write(note, json.dumps({"run_id": new}))
    return new


class FailSafeTracker:
    """Another tracker, given up with a line to `report` when it fails: a server that is away must not end a run."""

    def __init__(self, name: str, tracker: Tracker, report: Callable[[str], None]) -> None:
        self._name, self._tracker, self._report = name, tracker, report
        self._given_up = False

    def log(self, step: int, figures: dict[str, float]) -> None:
        self._attempt(lambda: self._tracker.log(step, figures))

    def close(self) -> None:
        self._attempt(self._tracker.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self._given_up:
            return
        try:
            action()
        except Exception as error:  # whatever the tracker's own library raises
            self._given_up = True
            self._report(f"warning: nothing more is reported to {self._name}: {_in_one_line(error)}")


_TRACKERS: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {"wandb": Wandb, "mlflow": Mlflow, "trackio": Trackio}


def check_trackers(names: Sequence[config.Tracker]) -> None:
    """InputError if one of the trackers is not installed."""
    for name in names:
        _library(name)


def open_trackers(
    names: Sequence[config.Tracker], folder: Path, recipe: dict[str, Any], report: Callable[[str], None]
) -> list[Tracker]:
    """The trackers `names`, for the run in `folder`.

    Raises InputError if one cannot be opened; one that fails later is given up with a line to `report`.
    """
    opened = list[Tracker]()
    try:
        for name in names:
            opened.append(FailSafeTracker(name, _opened(name, folder, recipe), report))
    except InputError:
        for tracker in opened:
            tracker.close()
        raise
    return opened


def _opened(name: config.Tracker, folder: Path, recipe: dict[str, Any]) -> Tracker:
    try:
        return _TRACKERS[name](folder, recipe)
    except Exception as error:  # whatever the tracker's own library raises
        raise InputError(f"run.trackers {name} cannot be opened: {_in_one_line(error)}") from None


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(f"run.trackers {name}: it is not installed; pip install 'kdaug[trackers]'") from None
