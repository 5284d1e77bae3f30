"""metrics.jsonl: one JSON object per line. Reports take all their numbers from it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kdaug.errors import InputError
from kdaug.runs.trackers import Tracker
from kdaug.storage import atomic_write

METRICS_NAME = "metrics.jsonl"
_REQUIRED = {
    "step": ["cross_entropy"],
    "eval": ["top1_error"],
    "end": ["top1_error", "top5_error", "best_top1_error", "seconds"],
}
"""The metrics that every line of a kind has."""
RESTORE = "restore it, or start a new run in another run.dir"
"""The hint of errors about a missing or damaged file of a run."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of the metrics.jsonl in directory `run`, without a last line cut short by a crash.

    Raises InputError if another line is damaged.
    """
    file = run / METRICS_NAME
    texts = [text for text in file.read_bytes().splitlines() if text.strip()] if file.is_file() else []
    lines: list[dict[str, Any]] = []
    for line_number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if _is_valid(line):
            lines.append(line)
        elif line_number < len(texts):
            raise InputError(f"{file}: line {line_number} is damaged", RESTORE)
    return lines


def _is_valid(line: Any) -> bool:
    if not isinstance(line, dict) or type(line.get("step")) is not int or type(line.get("epoch")) is not int:
        return False
    kind = line.get("kind")
    return kind in _REQUIRED and all(isinstance(line.get(name), float | int) for name in _REQUIRED[kind])


def truncate_metrics(run: Path, first_step: int) -> None:
    """Drops the lines that a run resumed at `first_step` will write again: later steps, and evaluations from it on."""
    kept = [
        line
        for line in read_metrics(run)
        if line["step"] < first_step or (line["step"] == first_step and line["kind"] == "step")
    ]
    atomic_write(run / METRICS_NAME, "".join(json.dumps(line) + "\n" for line in kept))


class MetricsWriter:
    """Appends lines to the metrics.jsonl in directory `run` and sends the same metrics to `trackers`.

    Only `rank` 0 writes the file; the trackers of other ranks should be empty.
    """

    def __init__(self, run: Path, trackers: Sequence[Tracker] = (), rank: int = 0) -> None:
        self._file = open(run / METRICS_NAME, "a", encoding="utf-8") if rank == 0 else None
        self._trackers = trackers

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(self, *_: object) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._file is not None:
            self._file.close()

    def write(self, kind: str, step: int, epoch: int, metrics: dict[str, Any]) -> None:
        """Writes a line. step: finished steps. epoch: from 0. Lines of kind "step" stay in a buffer until `flush`."""
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **metrics}) + "\n")
            if kind != "step":
                self._file.flush()
        numbers = {f"{kind}/{name}": value for name, value in metrics.items() if isinstance(value, int | float)}
        for tracker in self._trackers:
            tracker.log(step, numbers)

    def flush(self, fsync: bool = False) -> None:
        """Writes buffered lines to the file; with `fsync` they survive a power loss."""
        if self._file is not None:
            self._file.flush()
            if fsync:
                os.fsync(self._file.fileno())


def epochs_done(line: dict[str, Any]) -> int:
    """How many epochs were finished when this line of metrics.jsonl was written."""
    epoch: int = line["epoch"]
    return epoch if line["kind"] == "step" else epoch + 1


@dataclass
class RunFollower:
    """The progress of a run. `update` reads only what was added to its metrics since the last call.

    metrics: the run's metrics.jsonl. done: finished epochs, of `epochs`. error, best: top-1 error in percent of the
    last evaluation and the lowest so far; None before the first. position: bytes read.
    """

    metrics: Path
    epochs: int
    position: int = 0
    done: int = 0
    error: float | None = None
    best: float | None = None

    def update(self) -> None:
        """Reads the new lines."""
        if not self.metrics.is_file():
            return
        if self.metrics.stat().st_size < self.position:  # resumed from a checkpoint before the end of the file
            self.position, self.done, self.error, self.best = 0, 0, None, None
        with open(self.metrics, "rb") as file:
            file.seek(self.position)
            added = file.read()
        complete = added[: added.rfind(b"\n") + 1]
        self.position += len(complete)
        lines = complete.splitlines()
        for line in lines:
            if line is lines[-1] or not line.startswith(b'{"kind": "step"'):
                self._read_line(line)

    def _read_line(self, text: bytes) -> None:
        try:
            line = json.loads(text)
            self.done = epochs_done(line)
            if line["kind"] == "eval":
                self.error = line["top1_error"]
                self.best = min(self.error, self.best if self.best is not None else math.inf)
        except (ValueError, KeyError, TypeError):
            return  # damaged lines are reported by read_metrics, not by a progress table
