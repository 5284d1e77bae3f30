"""The status of runs: which runs are below a folder, how far each is, and how to continue it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kdaug.config import read_recipe
from kdaug.errors import InputError
from kdaug.runs.directory import RunDirectory, check_resumable, list_checkpoints
from kdaug.runs.metrics import epochs_done, read_metrics
from kdaug.storage import is_locked

RunState = Literal["finished", "training", "stopped", "damaged"]


@dataclass(frozen=True)
class RunStatus:
    """The status of a run directory.

    epochs_done: finished epochs, of `epochs`. error, best: latest and lowest top-1 error in percent; None before the
    first evaluation. hint: the command that continues or evaluates the run; of a damaged run, what is wrong.
    """

    path: Path
    state: RunState
    student: str
    policy: str
    epochs_done: int
    epochs: int
    error: float | None
    best: float | None
    hint: str


def find_runs(folder: Path) -> Iterator[RunStatus]:
    """The status of every run at or below `folder`, sorted by path. Raises InputError if there is no such folder."""
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise InputError(f"folder {folder} {problem}", "runs are written below runs/ unless run.dir is set")
    for path, folders, files in os.walk(folder):
        folders.sort()
        if "recipe.yaml" in files and ("checkpoints" in folders or "metrics.jsonl" in files):
            folders.clear()
            yield run_status(Path(path))


def run_status(path: Path) -> RunStatus:
    """The status of the run directory at `path`. Nothing is changed there."""
    directory = RunDirectory(path)
    # before the metrics, which a training run writes first
    newest_step = max(
        (int(path.name.removeprefix("step-")) for path in list_checkpoints(directory.checkpoints)), default=0
    )
    try:
        recipe, lines = read_recipe(directory.recipe), read_metrics(path)
        is_finished = directory.is_finished
        if not is_finished:
            check_resumable(directory, lines, newest_step)
    except (InputError, OSError) as error:
        return RunStatus(path, "damaged", "", "", 0, 0, None, None, str(error))
    errors = [line["top1_error"] for line in lines if line["kind"] == "eval"]
    state: RunState = "finished" if is_finished else "training" if is_locked(path) else "stopped"
    quoted = shlex.quote(str(path))
    commands = {"finished": f"kdaug eval {quoted}", "stopped": f"kdaug train {quoted} --run.resume", "training": ""}
    return RunStatus(
        path,
        state,
        recipe.student.name,
        recipe.views.policy,
        max(map(epochs_done, lines), default=0),
        recipe.optimization.total_epochs,
        errors[-1] if errors else None,
        min(errors, default=None),
        commands[state],
    )
