"""How far a run is while it trains, for whoever looks again and again."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_STEP = b'{"kind": "step"'
"""How most lines of a log begin, of which only the last is of interest."""


def epochs_done(line: dict[str, Any]) -> int:
    """How many epochs were over when this line of a log was written."""
    epoch: int = line["epoch"]
    return epoch if line["kind"] == "step" else epoch + 1


@dataclass
class FollowedRun:
    """How far a run is. Its log, which may be long, is read only as far as it has grown since the last look.

    done: epochs that are over, of `epochs`. error, best: in percent, of the last evaluation and the lowest so far.
    """

    log: Path
    epochs: int
    read: int = 0
    done: int = 0
    error: float | None = None
    best: float | None = None

    def look(self) -> None:
        """Reads on."""
        if not self.log.is_file():
            return
        if self.log.stat().st_size < self.read:  # the run went on from a checkpoint before the end of its log
            self.read, self.done, self.error, self.best = 0, 0, None, None
        with open(self.log, "rb") as log:
            log.seek(self.read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self.read += len(whole)
        lines = whole.splitlines()
        for place, text in enumerate(lines):
            if place == len(lines) - 1 or not text.startswith(_STEP):
                self._take(text)

    def _take(self, text: bytes) -> None:
        try:
            line = json.loads(text)
            self.done = epochs_done(line)
            if line["kind"] == "eval":
                self.error = line["top1_error"]
                self.best = min(self.error, self.best if self.best is not None else math.inf)
        except (ValueError, KeyError, TypeError):
            return  # it is for whoever reads the run, not for a table, to say that its log is damaged
