"""How long a run takes, from measured times, and how many epochs fit into a limit of time."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from kdaug.errors import InputError
from kdaug.photos.rules import MOST_EVALUATIONS

_FIXED_SECONDS = 10.0
"""For what is not measured: opening TensorBoard, writing checkpoints, drawing the page at the end."""
_RESERVE = 0.1
"""Share of the limit that is left unused: the speed of a machine varies."""


@dataclass(frozen=True)
class NetworkSeconds:
    """Measured seconds of a network that is trained: its start, a training step, and an evaluation."""

    start: float
    step: float
    evaluation: float


@dataclass(frozen=True)
class RunSeconds:
    """What a run takes, in seconds, apart from the number of epochs.

    student: its step includes the teacher's forward pass. teacher: of its own training; None: it is not trained for
    this run. other: everything else, such as the check of the photos and the evaluations at the end.
    """

    steps_per_epoch: int
    student: NetworkSeconds
    teacher: NetworkSeconds | None
    other: float


@dataclass(frozen=True)
class Estimate:
    """Estimated seconds of a run, by part."""

    teacher: float
    student: float
    other: float

    @property
    def total(self) -> float:
        return self.teacher + self.student + self.other


def estimate(run: RunSeconds, epochs: int, teacher_epochs: int, clean_epochs: int = 0) -> Estimate:
    """What training takes for these numbers of epochs. The evaluations are as many as `schedule_settings` allows."""
    teacher = 0.0 if run.teacher is None else _training(run.teacher, teacher_epochs, run.steps_per_epoch)
    other = run.other + _FIXED_SECONDS
    return Estimate(teacher, _training(run.student, epochs + clean_epochs, run.steps_per_epoch), other)


def _training(network: NetworkSeconds, epochs: int, steps_per_epoch: int) -> float:
    evaluations = min(epochs, MOST_EVALUATIONS)
    return network.start + epochs * steps_per_epoch * network.step + evaluations * network.evaluation


def minutes_needed(
    run: RunSeconds, epochs: int, elapsed: float, teacher_epochs: int | None = None, clean_epochs: int = 0
) -> float:
    """Minutes of the whole command, with a tenth of the time in reserve.

    elapsed: seconds that the command has taken already. teacher_epochs: of the teacher; None: as the student.
    """
    training = estimate(run, epochs, teacher_epochs or epochs, clean_epochs)
    return (elapsed + training.total) / (1 - _RESERVE) / 60


def epochs_within(
    run: RunSeconds, minutes: float, elapsed: float, most: int, teacher_epochs: int | None = None, clean_epochs: int = 0
) -> int:
    """The most epochs, at most `most`, with which the whole command takes at most `minutes`.

    See `minutes_needed`. Raises InputError, which says how many minutes are needed, if one epoch is too long.
    """

    def needed(epochs: int) -> float:
        return minutes_needed(run, epochs, elapsed, teacher_epochs, clean_epochs)

    epochs = bisect.bisect_right(range(1, most + 1), minutes, key=needed)
    if epochs == 0:
        least = math.ceil(needed(1) * 10) / 10
        raise InputError(
            f"--minutes {minutes:g} is too short: one epoch with all that belongs to it takes {least:g} minutes here",
            f"use --minutes {least:g} or more, or a smaller data.image_size or student.name",
        )
    return epochs
