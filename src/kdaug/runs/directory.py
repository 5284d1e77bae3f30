"""A run directory: recipe, environment, metrics, checkpoints, weights. It is never overwritten, only resumed."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from kdaug.config import ResolvedRecipe, read_recipe, to_yaml
from kdaug.errors import InputError
from kdaug.networks import is_valid_weights_file
from kdaug.runs.identity import recipe_differences
from kdaug.runs.metrics import METRICS_NAME, read_metrics
from kdaug.storage import LOCK_NAME, atomic_write, is_partial_file, lock_directory


@dataclass(frozen=True)
class RunDirectory:
    """The paths of a run's files."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / METRICS_NAME

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best_weights(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last_weights(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def is_finished(self) -> bool:
        """Whether training has reached its last step and the final weights are there."""
        if not is_valid_weights_file(self.last_weights):
            return False
        return any(line["kind"] == "end" for line in read_metrics(self.path))


def find_run(recipe: ResolvedRecipe) -> RunDirectory:
    """The directory recipe.run.dir, new or to be resumed. Nothing is written yet.

    Raises InputError if it exists and run.resume is off, if it is not a run directory, or if its recipe differs.
    """
    directory = RunDirectory(Path(recipe.run.dir))
    if directory.recipe.is_file():
        if not recipe.run.resume:
            raise InputError(f"{directory.path} exists", "continue it with run.resume or choose another run.dir")
        changed = "; ".join(recipe_differences(read_recipe(directory.recipe), recipe))
        if changed:
            raise InputError(f"{directory.path} was started with another recipe ({changed})", "choose another run.dir")
        if read_metrics(directory.path) and not directory.checkpoints.is_dir() and not directory.is_finished:
            raise InputError(
                f"{directory.path} has no checkpoints/ any more", "restore it, or start a new run in another run.dir"
            )
    elif directory.path.exists() and (not directory.path.is_dir() or _has_unknown_files(directory.path)):
        raise InputError(f"{directory.path} exists and is not a run directory", "choose another run.dir")
    return directory


def _has_unknown_files(folder: Path) -> bool:
    """Whether `folder` has files other than those of a run that was killed at its start."""
    names = {
        path.name for path in folder.iterdir() if not (path.name.startswith("recipe.yaml.") and is_partial_file(path))
    }
    return not names <= {LOCK_NAME, "checkpoints"}


def open_run(directory: RunDirectory, recipe: ResolvedRecipe) -> IO[str]:
    """Creates the directory of a new run and locks it for this process until the returned file is closed.

    Raises InputError if the directory is not writable, or another process is training in it.
    """
    try:
        directory.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {directory.path} cannot be written: {error.strerror}") from None
    lock = lock_directory(directory.path, "trained")
    try:
        if not directory.recipe.is_file():
            atomic_write(directory.recipe, to_yaml(replace(recipe, run=replace(recipe.run, resume=False))))
    except OSError:
        lock.close()
        raise
    return lock


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name) and path.is_dir())
