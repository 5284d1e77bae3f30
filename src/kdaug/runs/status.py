"""Which runs there are below a folder, how far each has come, and how it goes on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdaug.config import read_recipe
from kdaug.errors import InputError
from kdaug.runs.directory import RunDirectory, list_checkpoints
from kdaug.runs.follow import epochs_done
from kdaug.runs.metrics import read_metrics
from kdaug.storage.lock import is_locked

RunState = Literal["finished", "training", "stopped", "damaged"]


@dataclass(frozen=True)
class RunStatus:
    """A run directory as it stands.

    epochs_done of epochs; error and best: top-1 error in percent of the latest evaluation and the lowest so far, None
    before the first. next: the command that goes on, or measures again; of a damaged run, what is wrong.
    """

    path: Path
    state: RunState
    student: str
    policy: str
    epochs_done: int
    epochs: int
    error: float | None
    best: float | None
    next: str


def find_runs(folder: Path) -> Iterator[RunStatus]:
    """The status of every run directory at or below `folder`, by path. InputError if there is no such folder."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"folder {folder} {what}; runs are written below runs/ unless --run.dir says otherwise")
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "recipe.yaml" in files and ("checkpoints" in folders or "metrics.jsonl" in files):
            folders.clear()
            yield run_status(Path(place))


def run_status(path: Path) -> RunStatus:
    """The status of the run directory at `path`; nothing is changed there."""
    directory = RunDirectory(path)
    newest = _newest_checkpoint(directory)  # before the log is read, which a run that trains has written first
    try:
        recipe, lines = read_recipe(directory.recipe), read_metrics(path)
        finished = directory.is_finished
        if not finished:
            _check_that_it_can_go_on(directory, lines, newest)
    except (InputError, OSError) as error:
        return RunStatus(path, "damaged", "", "", 0, 0, None, None, str(error))
    errors = [line["top1_error"] for line in lines if line["kind"] == "eval"]
    state: RunState = "finished" if finished else "training" if is_locked(path) else "stopped"
    place = shlex.quote(str(path))
    commands = {"finished": f"kdaug eval {place}", "stopped": f"kdaug train {place} --run.resume", "training": ""}
    return RunStatus(
        path,
        state,
        recipe.student.name,
        recipe.views.policy,
        max(map(epochs_done, lines), default=0),
        recipe.optimization.all_epochs,
        errors[-1] if errors else None,
        min(errors, default=None),
        commands[state],
    )


def _newest_checkpoint(directory: RunDirectory) -> int:
    """Its step; 0 if there is none."""
    return max((int(path.name.removeprefix("step-")) for path in list_checkpoints(directory.checkpoints)), default=0)


def _check_that_it_can_go_on(directory: RunDirectory, lines: list[dict[str, Any]], newest: int) -> None:
    """InputError if the log or the checkpoints of an unfinished run are gone."""
    if lines and not directory.checkpoints.is_dir():
        raise InputError(f"{directory.path} has lost its checkpoints/; bring it back")
    if newest > max((line["step"] for line in lines), default=0):
        raise InputError(f"{directory.metrics} ends before the checkpoint at step {newest}; bring back what is missing")
