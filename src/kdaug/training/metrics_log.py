"""metrics.jsonl, the truth that reports read, and its copy for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from kdaug.files import write_whole
from kdaug.training.checkpoints import Diverged
from kdaug.training.run_directory import RunDirectory, read_metrics

_READ_EVERY = 20
"""Steps between readings of the losses, so that a GPU is not waited for at each step."""


class MetricsLog:
    """Appends one JSON object per line: kind, step, epoch, and named figures."""

    def __init__(self, directory: RunDirectory, first_step: int, last_step: int) -> None:
        """Drops lines of what will be done again: steps after `first_step`, and what follows `last_step`."""
        kept = [
            line
            for line in read_metrics(directory.path)
            if line["step"] <= first_step and (line["kind"] == "step" or line["step"] < last_step)
        ]
        write_whole(directory.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = open(directory.metrics, "a", encoding="utf-8")
        self._board = SummaryWriter(str(directory.tensorboard), purge_step=first_step + 1)
        self._unread: list[tuple[int, int, dict[str, Tensor], float]] = []
        self._epoch = -1
        self._sums: dict[str, float] = {}
        self._count = 0

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()

    def step(self, step: int, epoch: int, parts: dict[str, Tensor], learning_rate: float) -> None:
        """Notes the loss parts (scalar tensors) of `step`; they are read from the device some steps later."""
        self._unread.append((step, epoch, parts, learning_rate))
        if len(self._unread) >= _READ_EVERY:
            self.flush()

    def flush(self, to_disk: bool = False) -> None:
        """Writes all steps noted so far, `to_disk` so that they survive a power loss.

        Raises Diverged at the first whose loss is not finite.
        """
        unread, self._unread = self._unread, []
        for step, epoch, parts, learning_rate in unread:
            figures = {name: float(value) for name, value in parts.items()}
            if not math.isfinite(figures["loss"]):
                raise Diverged(f"the loss is {figures['loss']} at step {step} (epoch {epoch})")
            self._add_to_epoch(epoch, figures)
            self.write("step", step, epoch, {**figures, "learning_rate": learning_rate})
        self._file.flush()
        if to_disk:
            os.fsync(self._file.fileno())

    def epoch_means(self) -> dict[str, float]:
        """Mean of each loss part over the steps of the current epoch that were read so far."""
        return {name: total / self._count for name, total in self._sums.items()}

    def _add_to_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        if epoch != self._epoch:
            self._epoch, self._sums, self._count = epoch, dict.fromkeys(figures, 0.0), 0
        self._count += 1
        for name, value in figures.items():
            self._sums[name] += value

    def write(self, kind: str, step: int, epoch: int, figures: dict[str, Any]) -> None:
        """Writes one line at once. `step` counts steps done, `epoch` is the epoch (from 0) they belong to."""
        self._file.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **figures}) + "\n")
        if kind != "step":
            self._file.flush()
        for name, value in figures.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{kind}/{name}", value, step)
