"""Predictions as files for other programs: CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

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
