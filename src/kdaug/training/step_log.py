"""The losses of each step: kept on the device, read in groups so that no step waits for the GPU, then logged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kdaug.data.loader import BatchKey
from kdaug.runs import MetricsWriter
from kdaug.training.distributed import DistContext
from kdaug.training.state import Diverged

_READ_EVERY = 20
"""Steps between two readings of the losses."""
_MAX_NAMED = 5
"""How many images with a loss that is not finite are named in the error."""


@dataclass(frozen=True)
class _PendingStep:
    """A step whose losses, [N] each for this rank's part of the batch, are still on the device."""

    step: int
    key: BatchKey
    losses: dict[str, Tensor]
    learning_rate: float


class StepLog:
    """Logs the mean losses of each step over the images of all ranks, and keeps their means over the epoch.

    name_of: turns the index of a training image into its name, for the error about a loss that is not finite.
    """

    def __init__(
        self,
        metrics: MetricsWriter,
        dist: DistContext = DistContext(),  # noqa: B008 - frozen
        name_of: Callable[[int], str] = str,
    ) -> None:
        self.metrics, self._dist, self._name_of = metrics, dist, name_of
        self._pending: list[_PendingStep] = []
        self._epoch = -1
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, step: int, key: BatchKey, losses: dict[str, Tensor], learning_rate: float) -> None:
        """Adds the losses of `step`, [N] each for the images of `key`. They are read from the device later."""
        self._pending.append(_PendingStep(step, key, losses, learning_rate))
        if len(self._pending) >= _READ_EVERY:
            self.flush()

    def flush(self, fsync: bool = False) -> None:
        """Reads and writes all steps added so far; with `fsync` the file survives a power loss.

        Raises Diverged at the first step whose loss is not finite.
        """
        pending, self._pending = self._pending, []
        for added, figures in zip(pending, self._read(pending), strict=True):
            if not math.isfinite(figures["loss"]):
                raise Diverged(self._describe(added, figures["loss"]))
            self._add_to_epoch(added.key.epoch, figures)
            self.metrics.write("step", added.step, added.key.epoch, {**figures, "learning_rate": added.learning_rate})
        self.metrics.flush(fsync)

    def _read(self, pending: list[_PendingStep]) -> list[dict[str, float]]:
        """The mean of each loss at each step. Waits for the device, once."""
        if not pending:
            return []
        sums = torch.stack([value.float().sum() for added in pending for value in added.losses.values()])
        counts = [float(len(added.key.indices)) for added in pending]
        numbers = iter(self._dist.sum(torch.cat([sums.double().cpu(), torch.tensor(counts).double()])).tolist())
        totals = [{name: next(numbers) for name in added.losses} for added in pending]
        return [
            {name: total / count for name, total in each.items()} for each, count in zip(totals, numbers, strict=True)
        ]

    def _describe(self, added: _PendingStep, loss: float) -> str:
        bad = added.key.indices[~added.losses["loss"].isfinite().cpu().numpy()]
        images = [self._name_of(int(index)) for indices in self._dist.gather(bad) for index in indices]
        more = f" and {len(images) - _MAX_NAMED} more" if len(images) > _MAX_NAMED else ""
        named = ", ".join(images[:_MAX_NAMED]) + more
        return f"the loss is {loss} at step {added.step} (epoch {added.key.epoch}), of image {named}"

    def epoch_means(self) -> dict[str, float]:
        """The mean of each loss over the steps of the current epoch that were read so far."""
        return {name: total / self._count for name, total in self._sums.items()}

    def _add_to_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        if epoch != self._epoch:
            self._epoch, self._sums, self._count = epoch, dict.fromkeys(figures, 0.0), 0
        self._count += 1
        for name, value in figures.items():
            self._sums[name] += value
