"""metrics.jsonl, the truth that reports read, and its copy for TensorBoard."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from kdaug.data.loader import BatchKey
from kdaug.files import write_whole
from kdaug.training.checkpoints import Diverged
from kdaug.training.distributed import World
from kdaug.training.run_directory import RunDirectory, read_metrics
from kdaug.training.trackers import Tracker

_READ_EVERY = 20
"""Steps between readings of the losses, so that a GPU is not waited for at each step."""
_NAMED = 5
"""How many of the images whose loss is not finite are named."""


@dataclass(frozen=True)
class _Unread:
    """A step whose figures, [N] each for this rank's share of the batch, are still on the device."""

    step: int
    key: BatchKey
    parts: dict[str, Tensor]
    learning_rate: float


def cut_back(directory: RunDirectory, first_step: int) -> None:
    """Drops the lines of what will be done again: steps after `first_step`, and evaluations from it on."""
    kept = [
        line
        for line in read_metrics(directory.path)
        if line["step"] < first_step or (line["step"] == first_step and line["kind"] == "step")
    ]
    write_whole(directory.metrics, "".join(json.dumps(line) + "\n" for line in kept))


class MetricsLog:
    """Appends one JSON object per line: kind, step, epoch, and named figures. Only the first rank writes."""

    def __init__(
        self,
        directory: RunDirectory,
        trackers: Sequence[Tracker] = (),
        world: World = World(),  # noqa: B008 - frozen
        name_of: Callable[[int], str] = str,
    ) -> None:
        """`name_of` a training image's index says which it is, should its loss not be finite."""
        self._file = open(directory.metrics, "a", encoding="utf-8") if world.first else None
        self._trackers, self._world, self._name_of = trackers, world, name_of
        self._unread: list[_Unread] = []
        self._epoch = -1
        self._sums: dict[str, float] = {}
        self._count = 0

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._file is not None:
            self._file.close()

    def step(self, step: int, key: BatchKey, parts: dict[str, Tensor], learning_rate: float) -> None:
        """Notes the loss parts of `step`, one value per image of `key`; they are read from the device later."""
        self._unread.append(_Unread(step, key, parts, learning_rate))
        if len(self._unread) >= _READ_EVERY:
            self.flush()

    def flush(self, to_disk: bool = False) -> None:
        """Writes all steps noted so far, means over the images of all ranks, `to_disk` to survive a power loss.

        Raises Diverged at the first whose loss is not finite.
        """
        unread, self._unread = self._unread, []
        for noted, figures in zip(unread, self._read(unread), strict=True):
            if not math.isfinite(figures["loss"]):
                raise Diverged(self._where(noted, figures["loss"]))
            self._add_to_epoch(noted.key.epoch, figures)
            self.write("step", noted.step, noted.key.epoch, {**figures, "learning_rate": noted.learning_rate})
        if self._file is not None:
            self._file.flush()
            if to_disk:
                os.fsync(self._file.fileno())

    def _read(self, unread: list[_Unread]) -> list[dict[str, float]]:
        """The mean of every part at every step; this waits for the device, once."""
        if not unread:
            return []
        sums = torch.stack([value.float().sum() for noted in unread for value in noted.parts.values()])
        counts = [float(len(noted.key.indices)) for noted in unread]
        numbers = iter(self._world.sum(torch.cat([sums.double().cpu(), torch.tensor(counts).double()])).tolist())
        totals = [{name: next(numbers) for name in noted.parts} for noted in unread]
        return [
            {name: total / count for name, total in each.items()} for each, count in zip(totals, numbers, strict=True)
        ]

    def _where(self, noted: _Unread, loss: float) -> str:
        bad = noted.key.indices[~noted.parts["loss"].isfinite().cpu().numpy()]
        images = [self._name_of(int(index)) for indices in self._world.gather(bad) for index in indices]
        named = ", ".join(images[:_NAMED]) + (f" and {len(images) - _NAMED} more" if len(images) > _NAMED else "")
        return f"the loss is {loss} at step {noted.step} (epoch {noted.key.epoch}), of image {named}"

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
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, "step": step, "epoch": epoch, **figures}) + "\n")
            if kind != "step":
                self._file.flush()
        numbers = {f"{kind}/{name}": value for name, value in figures.items() if isinstance(value, int | float)}
        for tracker in self._trackers:
            tracker.log(step, numbers)
