"""The result of the demonstration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdaug.study.report.tables import Table
from kdaug.training import TrainResult


@dataclass(frozen=True)
class DemoResult:
    """The three finished runs, and the path of the page about them."""

    teacher: TrainResult
    label_only: TrainResult
    with_teacher: TrainResult
    page: Path

    @property
    def gain(self) -> float:
        """How much lower the student's error is with the teacher, in points."""
        return self.label_only.top1_error - self.with_teacher.top1_error

    def table(self) -> Table:
        """The errors of both students, and the gain."""
        rows = (
            ("labels only", f"{self.label_only.top1_error:.2f} %"),
            ("with the teacher", f"{self.with_teacher.top1_error:.2f} %"),
            ("gain", f"{self.gain:+.2f} points"),
        )
        return Table("Error on the validation images", ("student under strong augmentation", "error"), 1, rows)
