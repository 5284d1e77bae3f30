"""Predictions as files for other programs: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from kdaug.inference.evaluate import Evaluation
from kdaug.inference.model import TopClasses
from kdaug.storage import atomic_write

FilePrediction = tuple[Path, TopClasses]
"""An image file and its most probable classes."""


def write_json(predictions: Sequence[FilePrediction], path: Path) -> None:
    """Writes [{"path", "top": [{"class", "probability"}, ...]}, ...], most probable class first."""
    content = [
        {"path": str(file), "top": [{"class": name, "probability": probability} for name, probability in top]}
        for file, top in predictions
    ]
    atomic_write(path, json.dumps(content, indent=1) + "\n")


def write_csv(predictions: Sequence[FilePrediction], path: Path) -> None:
    """Writes a row per image: path, then class_1, probability_1, class_2, ... In UTF-8; bytes of names are kept."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = max((len(top) for _, top in predictions), default=0)
    writer.writerow(["path", *(f"{kind}_{rank + 1}" for rank in range(columns) for kind in ("class", "probability"))])
    for file, top in predictions:
        writer.writerow([file, *(value for pair in top for value in pair)])
    atomic_write(path, out.getvalue().encode("utf-8", "surrogateescape"))


def write_evaluation_csv(evaluation: Evaluation, path: Path) -> None:
    """Writes a row per image: path (or its number in the dataset), label, predicted class and its probability.

    Images that cannot be read have no row. Encoding as `write_csv`.
    """
    out, classes, found = io.StringIO(), evaluation.classes, evaluation.predictions
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "label", "predicted", "probability"])
    columns = (found.rows, found.labels, found.predicted, found.confidence)
    for row, label, predicted, probability in zip(*(column.tolist() for column in columns), strict=True):
        writer.writerow([evaluation.images.name_of(row), classes[label], classes[predicted], probability])
    atomic_write(path, out.getvalue().encode("utf-8", "surrogateescape"))
