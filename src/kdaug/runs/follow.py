"""Following a run while another process trains it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STEP_PREFIX = b'{"kind": "step"'
"""Most lines of metrics.jsonl begin with this; only the last of them matters here."""


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
        for number, line in enumerate(lines):
            if number == len(lines) - 1 or not line.startswith(_STEP_PREFIX):
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
