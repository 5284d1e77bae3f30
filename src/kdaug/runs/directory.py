"""A run directory: recipe, environment, metrics, checkpoints, weights. It is never overwritten, only resumed."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from kdaug.config import ResolvedRecipe, read_recipe, to_yaml
from kdaug.errors import InputError
from kdaug.networks import is_valid_weights_file
from kdaug.runs.identity import recipe_differences
from kdaug.runs.metrics import METRICS_NAME, RESTORE, read_metrics
from kdaug.storage import LOCK_NAME, atomic_write, lock_directory


class RunDirectory:
    """The paths of a run's files, in directory `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.environment = path / "environment.json"
        self.metrics = path / METRICS_NAME
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"
        self.best_weights = path / "best.safetensors"
        self.last_weights = path / "last.safetensors"

    @property
    def is_finished(self) -> bool:
        """Whether training has reached its last step and the final weights are there."""
        return is_valid_weights_file(self.last_weights) and any(
            line["kind"] == "end" for line in read_metrics(self.path)
        )

    @property
    def has_begun(self) -> bool:
        """Whether training is finished or continues from a checkpoint, so that initial weights are not needed."""
        return bool(list_checkpoints(self.checkpoints)) or self.is_finished


def find_run(recipe: ResolvedRecipe) -> RunDirectory:
    """The directory recipe.run.dir, new or to be resumed. Nothing is written yet.

    Raises InputError if it exists and run.resume is off, if it is not a run directory, or if its recipe differs.
    """
    directory = RunDirectory(Path(recipe.run.dir))
    if directory.recipe.is_file():
        if not recipe.run.resume:
            if directory.is_finished:
                raise InputError(f"{directory.path} is a finished run", "choose another run.dir")
            raise InputError(f"{directory.path} exists", "continue it with run.resume or choose another run.dir")
        changed = "; ".join(recipe_differences(read_recipe(directory.recipe), recipe))
        if changed:
            raise InputError(f"{directory.path} was started with another recipe ({changed})", "choose another run.dir")
        if not directory.is_finished:
            check_resumable(directory, read_metrics(directory.path), 0)
    elif directory.path.exists() and (not directory.path.is_dir() or _has_unknown_files(directory.path)):
        raise InputError(f"{directory.path} exists and is not a run directory", "choose another run.dir")
    return directory


def check_resumable(directory: RunDirectory, lines: list[dict[str, Any]], step: int) -> None:
    """Raises InputError if an unfinished run has no checkpoints/ any more, or its metrics `lines` end before `step`."""
    if lines and not directory.checkpoints.is_dir():
        raise InputError(f"{directory.path} has no checkpoints/ any more", RESTORE)
    if step > max((line["step"] for line in lines), default=0):
        raise InputError(f"{directory.metrics} ends before the checkpoint at step {step}", RESTORE)


def _has_unknown_files(folder: Path) -> bool:
    """Whether `folder` has files other than those of a run that was killed at its start."""
    names = {path.name for path in folder.iterdir() if not path.match("recipe.yaml.*.part")}
    return not names <= {LOCK_NAME, "checkpoints"}


def open_run(directory: RunDirectory, recipe: ResolvedRecipe, lock: ExitStack) -> None:
    """Creates a new run's directory and locks it until `lock` is closed. Raises InputError if that is not possible."""
    try:
        directory.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {directory.path} cannot be written: {error.strerror}") from None
    lock.enter_context(lock_directory(directory.path, "trained"))
    if not directory.recipe.is_file():
        atomic_write(directory.recipe, to_yaml(replace(recipe, run=replace(recipe.run, resume=False))))


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name) and path.is_dir())
