"""The losses of each step: read from the device in groups, so that no step waits for it, then logged and displayed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.progress import Progress
from torch import Tensor

from kdaug.data.loader import BatchKey
from kdaug.runs import MetricsWriter
from kdaug.training.distributed import SINGLE_PROCESS, DistContext
from kdaug.training.evaluation import Scores, describe_errors
from kdaug.training.state import Diverged

_logger = logging.getLogger(__name__)
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
        self, metrics: MetricsWriter, dist: DistContext = SINGLE_PROCESS, name_of: Callable[[int], str] = str
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
        """Reads and writes all added steps, with `fsync` to the disk. Raises Diverged if a loss is not finite."""
        pending, self._pending = self._pending, []
        for added, metrics in zip(pending, self._read(pending), strict=True):
            if not math.isfinite(metrics["loss"]):
                raise Diverged(self._describe(added, metrics["loss"]))
            self._add_to_epoch(added.key.epoch, metrics)
            self.metrics.write("step", added.step, added.key.epoch, {**metrics, "learning_rate": added.learning_rate})
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

    def _add_to_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        if epoch != self._epoch:
            self._epoch, self._sums, self._count = epoch, dict.fromkeys(metrics, 0.0), 0
        self._count += 1
        for name, value in metrics.items():
            self._sums[name] += value


class RunProgress:
    """The line of one run in a progress bar: steps done, images per second, the latest losses."""

    def __init__(self, bar: Progress, title: str, steps: int, done: int, images_per_step: int) -> None:
        """From `done` to `steps`; `images_per_step` turns steps into images per second."""
        self.bar, self._images_per_step = bar, images_per_step
        self._measured_from, self._first_step, self._done = time.monotonic(), done, done
        self._task = bar.add_task(title, total=steps, completed=done, speed="", metrics="")

    def step(self, done: int, losses: dict[str, float]) -> None:
        """Moves the bar to `done` steps and shows the latest losses."""
        self._done = done
        self.bar.update(self._task, completed=done, metrics=_format_losses(losses))
        speed = self.bar.tasks[self._task].speed
        if speed:
            self.bar.update(self._task, speed=f"{speed * self._images_per_step:,.0f} images/s")

    def speed(self) -> float:
        """Training images per second since the last evaluation; 0 if none."""
        steps, seconds = self._done - self._first_step, time.monotonic() - self._measured_from
        return steps * self._images_per_step / max(seconds, 1e-9)

    def log_evaluation(
        self,
        epoch: int,
        epochs: int,
        losses: dict[str, float],
        scores: Scores,
        train_error: float | None,
        speed: float,
        classes: int,
        imbalanced: bool,
    ) -> None:
        """Logs the scores after `epoch` (from 0) of `epochs`, trained at `speed` images per second.

        train_error: on the unaugmented training images, in percent; None: not measured. imbalanced: whether the
        validation images are, so that the balanced error says more than the error.
        """
        training = "" if train_error is None else f"  training error {train_error:.2f} %"
        error = describe_errors(scores.top1_error, scores.top5_error, classes)
        balanced = f"  balanced error {scores.balanced_error:.2f} %" if imbalanced else ""
        _logger.info(
            f"  epoch {epoch + 1:>3}/{epochs}  {_format_losses(losses)}  "
            f"error {error}{balanced}{training}  {speed:,.0f} images/s"
        )
        self._measured_from, self._first_step = time.monotonic(), self._done


def _format_losses(losses: dict[str, float]) -> str:
    formats = {
        "loss": "loss {:.3f}", "cross_entropy": "ce {:.3f}", "divergence": "kd {:.3f}", "adversarial": "adv {:.3f}",
        "teacher_agreement": "agreement {:.0f} %", "label_trust": "trust {:.0f} %", "learning_rate": "lr {:.2g}",
    }  # fmt: skip
    return "  ".join(formats[name].format(value) for name, value in losses.items() if name in formats)
