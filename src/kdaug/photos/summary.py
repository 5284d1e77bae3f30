"""The end of a run on photos: its errors against plain training, in lines and as a page."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from kdaug.config import Recipe
from kdaug.data.report import REPORT_NAME, TABLE_NAME
from kdaug.errors import printable
from kdaug.export.summary import describe_training
from kdaug.inference import Evaluation
from kdaug.inference.predictions import confusions
from kdaug.photos.comparison import Gain, PlainTraining, evaluate_final, find_plain_training, gain, interval_of
from kdaug.runs import RunDirectory
from kdaug.storage import atomic_write
from kdaug.study.report.curves import Curve, curves_figure
from kdaug.study.report.evaluation_page import evaluation_values
from kdaug.study.report.page import data_url, render_template
from kdaug.study.report.plotting import to_svg
from kdaug.study.report.tables import Table
from kdaug.training.progress import console_logging
from kdaug.training.resolve import read_resolved_recipe

PAGE_NAME = "index.html"
_SHOWN_CONFUSIONS = 3
NOT_COMPARED = (
    "no comparison with plain training: for that, the teacher must be the student's own network, trained without a "
    "policy on the same photos (teacher.source train, no teacher.network)"
)


@dataclass(frozen=True)
class Summary:
    """What a run has reached. plain: plain training, if its teacher is that; gain: the difference to it.

    leaks: validation images that are copies of training images; 0 if the images were not checked.
    """

    run: Path
    student: Evaluation
    plain: PlainTraining | None
    gain: Gain | None
    leaks: int

    def lines(self) -> list[str]:
        """The errors, the most frequent confusions, and how to go on."""
        images = f"{len(self.student.predictions):,} validation images"
        lines = list[str]()
        if self.plain is not None:
            lines.append(f"plain training (the teacher): {_error(self.plain.evaluation)}")
        lines.append(f"student: {_error(self.student)}")
        lines.append(NOT_COMPARED if self.gain is None else _describe_gain(self.gain))
        lines += self.warnings
        lines.append(f"in brackets: 95 % intervals for {images}, of one run each")
        if found := _frequent_confusions(self.student):
            lines.append(f"most frequent confusions: {found}")
        return [*lines, *(f"{name}: {command}" for name, command in self.commands().items())]

    @property
    def warnings(self) -> list[str]:
        """What to say if the errors are not to be trusted, or the student has learned nothing."""
        found, predictions = list[str](), self.student.predictions
        constant = 100 - 100 * np.bincount(predictions.labels).max() / len(predictions)
        if predictions.error >= constant:
            found.append(
                f"the student is not better than one class for all images ({constant:.2f} %): train longer, or start "
                "from trained weights"
            )
        if self.leaks:
            found.append(
                f"{self.leaks:,} validation image(s) are copies of training images, listed in {TABLE_NAME}, so the "
                "errors are too low"
            )
        return found

    def commands(self) -> dict[str, str]:
        """What to do with the run, by purpose."""
        run = shlex.quote(str(self.run))
        return {"predict": f"kdaug predict {run} PHOTO.jpg FOLDER", "page": f"{run}/{PAGE_NAME}"}


def _error(evaluation: Evaluation) -> str:
    low, high = interval_of(evaluation)
    return f"error {evaluation.predictions.error:.2f} % [{low:.2f}, {high:.2f}]"


def _describe_gain(found: Gain) -> str:
    low, high = found.interval
    return f"gain of policy and teacher: {found.points:+.2f} points [{low:+.2f}, {high:+.2f}]"


def _frequent_confusions(evaluation: Evaluation) -> str:
    names, labels = evaluation.classes, evaluation.predictions.labels.tolist()
    return ", ".join(
        f"{printable(names[each.label])} as {printable(names[each.predicted])} "
        f"({each.images:,} of {labels.count(each.label):,})"
        for each in confusions(evaluation.predictions)[:_SHOWN_CONFUSIONS]
    )


def summarize_run(run: Path, root: str, device: str) -> Summary:
    """Evaluates the finished run, and plain training if that is its teacher, and writes index.html into the run.

    root: where the photos are. device: as run.device. Raises InputError if the validation images cannot be read.
    """
    with console_logging(Console(quiet=True)):
        student = evaluate_final(run, root, device)
        plain = find_plain_training(run, root, device)
    difference = None if plain is None else gain(plain.evaluation.predictions, student.predictions)
    summary = Summary(run, student, plain, difference, _count_leaks(run))
    atomic_write(run / PAGE_NAME, _page(summary))
    return summary


def _count_leaks(run: Path) -> int:
    path = run / REPORT_NAME
    if not path.is_file():
        return 0
    return sum("leak" in copy["problem"] for copy in json.loads(path.read_text())["copies"])


def _page(summary: Summary) -> str:
    curves = [Curve("student", [summary.run], {"color": "#1d4ed8"})]
    if summary.plain is not None:
        curves.insert(0, Curve("plain training (the teacher)", [summary.plain.directory], {"color": "#a8a29e"}))
    return render_template(
        "photos/page.html.j2",
        **evaluation_values(summary.student, str(summary.run)),
        comparison=_comparison_table(summary),
        warnings=summary.warnings,
        gain=None if summary.gain is None else _describe_gain(summary.gain),
        not_compared=NOT_COMPARED,
        curves=data_url("image/svg+xml", to_svg(curves_figure(curves, stacked=True))),
        settings=_settings_table(read_resolved_recipe(RunDirectory(summary.run).recipe)),
        command=summary.commands()["predict"],
    )


def _settings_table(recipe: Recipe) -> Table:
    """What the student was trained with, in words."""
    rows = tuple((name, text.replace("`", "")) for name, text in describe_training(recipe).items())
    return Table("Settings", ("setting", "student"), 2, rows)


def _comparison_table(summary: Summary) -> Table:
    """A row for plain training, if there is one, and one for the student."""
    recipe = read_resolved_recipe(RunDirectory(summary.run).recipe)
    rows = [(f"student, policy {printable(recipe.views.policy)}", recipe.optimization.total_epochs, summary.student)]
    if summary.plain is not None:
        epochs = summary.plain.recipe.optimization.total_epochs
        rows.insert(0, ("plain training (the teacher)", epochs, summary.plain.evaluation))
    cells = tuple(
        (name, _error(found).removeprefix("error "), f"{found.scores.balanced_error:.2f} %", f"{epochs:,}")
        for name, epochs, found in rows
    )
    return Table("Errors", ("training", "error", "balanced error", "epochs"), 1, cells)
