"""The page about an evaluation: one HTML file with errors, confusions, calibration and the most confident mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdaug.calibration import calibration_error
from kdaug.data import ArrayImages
from kdaug.data.crops import CenterCrop, evaluation_fraction
from kdaug.data.decode import UnreadableImage, decode
from kdaug.errors import printable
from kdaug.inference import Evaluation
from kdaug.inference.predictions import (
    class_errors,
    confident_mistakes,
    confusion_matrix,
    confusions,
    error_interval,
)
from kdaug.storage import atomic_write
from kdaug.study.report.evaluation_figures import (
    MAX_CLASSES,
    confusion_figure,
    reliability_figure,
    to_svg_with_names,
)
from kdaug.study.report.page import data_url, jpeg_url, png_url, render_template
from kdaug.study.report.tables import Table

SHOWN_MISTAKES, SHOWN_CONFUSIONS = 24, 20
_THUMBNAIL = 224
"""Largest side of a picture on the page, in pixels."""


@dataclass(frozen=True)
class Mistake:
    """A wrong prediction. url: the picture, as the network gets it; None if it can no longer be read."""

    path: str
    label: str
    predicted: str
    probability: float
    url: str | None


def write_evaluation_page(evaluation: Evaluation, title: str, path: Path) -> None:
    """Writes the page to `path`. title: what was evaluated. All names are escaped."""
    atomic_write(path, render_template("study/report/evaluation.html.j2", **evaluation_values(evaluation, title)))


def evaluation_values(evaluation: Evaluation, title: str) -> dict[str, Any]:
    """The values of the template evaluation.html.j2, for the page and for pages that extend it. title: see above."""
    predictions, names = evaluation.predictions, [printable(name) for name in evaluation.classes]
    bins = predictions.calibration
    figures = {"reliability": reliability_figure(bins)}
    if len(names) <= MAX_CLASSES:
        figures["confusion"] = confusion_figure(confusion_matrix(predictions, len(names)), names)
    return {
        "title": printable(title),
        "error": predictions.error,
        "interval": error_interval(int(predictions.wrong.sum()), len(predictions)),
        "scores": evaluation.scores,
        "unreadable": len(evaluation.images) - len(predictions),
        "val_source": printable(evaluation.val_source),
        "calibration_error": calibration_error(bins),
        "figures": {name: data_url("image/svg+xml", to_svg_with_names(figure)) for name, figure in figures.items()},
        "confusions": confusions_table(evaluation, names),
        "classes": classes_table(evaluation, names),
        "small": evaluation.side < _THUMBNAIL // 2,
        "mistakes": [_mistake(evaluation, names, row) for row in confident_mistakes(predictions, SHOWN_MISTAKES)],
    }


def classes_table(evaluation: Evaluation, names: Sequence[str]) -> Table:
    """A row per class, highest error first, with the class that is predicted most often in its place."""
    instead = dict[int, str]()
    for each in confusions(evaluation.predictions):
        instead.setdefault(each.label, f"{names[each.predicted]} ({each.images:,})")
    errors = list(enumerate(class_errors(evaluation.predictions, names)))
    errors.sort(key=lambda item: -1.0 if item[1].error is None else item[1].error, reverse=True)
    rows = tuple(
        (each.name, instead.get(label, ""), _percent(each.error), f"{each.errors:,}", f"{each.images:,}")
        for label, each in errors
    )
    return Table("Classes", ("class", "most often predicted instead", "error, %", "wrong", "images"), 2, rows)


def confusions_table(evaluation: Evaluation, names: Sequence[str]) -> Table:
    """The most frequent confusions of two classes."""
    images = np.bincount(evaluation.predictions.labels, minlength=len(names))
    rows = tuple(
        (names[each.label], names[each.predicted], f"{each.images:,}", _percent(100 * each.images / images[each.label]))
        for each in confusions(evaluation.predictions)[:SHOWN_CONFUSIONS]
    )
    header = ("label", "predicted", "images", "of the label, %")
    return Table("Most frequent confusions", header, 2, rows)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _mistake(evaluation: Evaluation, names: Sequence[str], position: int) -> Mistake:
    """The prediction at `position` with its picture."""
    predictions = evaluation.predictions
    row = int(predictions.rows[position])
    return Mistake(
        printable(evaluation.images.name_of(row)),
        names[predictions.labels[position]],
        names[predictions.predicted[position]],
        float(predictions.confidence[position]),
        _picture(evaluation, row),
    )


def _picture(evaluation: Evaluation, row: int) -> str | None:
    images, side = evaluation.images, evaluation.side
    if isinstance(images, ArrayImages):
        return png_url(images.images[row])
    try:
        pixels = decode(images.files[row], CenterCrop(min(side, _THUMBNAIL), evaluation_fraction(side)), 0, 0)
    except UnreadableImage:
        return None
    return jpeg_url(pixels)
