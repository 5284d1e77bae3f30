"""metrics.jsonl: one JSON object per line. It is the only source of the figures in reports."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
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
"""The figures that readers rely on, by kind of line."""


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of the metrics.jsonl in directory `run`, in order. A last line cut short by a crash is left out.

    Raises InputError if an earlier line is damaged.
    """
    file = run / METRICS_NAME
    texts = [text for text in file.read_bytes().splitlines() if text.strip()] if file.is_file() else []
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if _is_valid(line):
            lines.append(line)
        elif number < len(texts):
            raise InputError(f"{file}: line {number} is damaged", "restore it, or start a new run in another run.dir")
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
    """Appends lines to the metrics.jsonl in directory `run` and sends the same figures to `trackers`.

    Only `rank` 0 writes the file; the trackers of other ranks should be empty.
    """

    def __init__(self, run: Path, trackers: Sequence[Tracker] = (), rank: int = 0) -> None:
        self._file = open(run / METRICS_NAME, "a", encoding="utf-8") if rank == 0 else None
        self._trackers = trackers

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._file is not None:
            self._file.close()

    def write(self, kind: str, step: int, epoch: int, figures: dict[str, Any]) -> None:
        """Writes one line. `step` is the number of finished steps, `epoch` (from 0) the epoch they belong to.

        Lines of kind "step" may stay in a buffer until the next `flush`.
        """
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **figures}) + "\n")
            if kind != "step":
                self._file.flush()
        numbers = {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}
        for tracker in self._trackers:
            tracker.log(step, numbers)

    def flush(self, fsync: bool = False) -> None:
        """Writes buffered lines to the file; with `fsync` they survive a power loss."""
        if self._file is not None:
            self._file.flush()
            if fsync:
                os.fsync(self._file.fileno())
