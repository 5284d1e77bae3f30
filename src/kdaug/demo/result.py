"""The result of the demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdaug.study.report.curves import errors_by_epoch
from kdaug.study.report.tables import Table
from kdaug.training import TrainResult


@dataclass(frozen=True)
class DemoResult:
    """The three finished runs, and the path of the page about them.

    plain: trained without the policy. augmented: with it. with_teacher: with it and the teacher's soft labels.
    """

    plain: TrainResult
    augmented: TrainResult
    with_teacher: TrainResult
    page: Path

    @property
    def runs(self) -> dict[str, TrainResult]:
        """The runs by what they are called."""
        return {
            "plain": self.plain,
            "strong augmentation": self.augmented,
            "strong augmentation and teacher": self.with_teacher,
        }

    def summary(self) -> dict[str, float]:
        """The errors of the three students in percent, and the seconds that their training took together."""
        return {
            "plain": self.plain.top1_error,
            "augmented": self.augmented.top1_error,
            "with_teacher": self.with_teacher.top1_error,
            "seconds": round(sum(run.seconds for run in self.runs.values()), 1),
        }

    def table(self) -> Table:
        """The errors of the students on training and test images, and how far the latter are from plain training's."""
        rows = tuple(
            (
                name, f"{_train_error(run):.2f} %", f"{run.top1_error:.2f} %",
                f"{run.top1_error - self.plain.top1_error:+.2f}",
            )
            for name, run in self.runs.items()
        )  # fmt: skip
        header = ("student trained with", "training images", "test images", "against plain")
        return Table("Errors of the same network", header, 1, rows)


def _train_error(run: TrainResult) -> float:
    """The error on the unaugmented training images after the last epoch, in percent (run.evaluate_train)."""
    return list(errors_by_epoch(run.directory, "train_error").values())[-1]
