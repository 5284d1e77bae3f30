"""views.csv: a row per view, written while the teacher predicts; label-errors.csv: the likely label errors."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from kdaug.data import Dataset
from kdaug.errors import printable
from kdaug.inspection.design import Design
from kdaug.inspection.label_errors import LabelError
from kdaug.inspection.table import Kind, PredictedBatch, ViewTable
from kdaug.storage import atomic_file

COLUMNS = (
    "key", "kind", "image", "name", "label", "epoch", "magnitude", "ops", "partner_label", "own_share",
    "planned_magnitude", "label_probability", "entropy", "top1", "agrees_with_unaugmented", "label_in_top_k",
)  # fmt: skip


LABEL_ERROR_COLUMNS = "image", "name", "label", "suggested", "label_probability", "suggested_probability"


class ViewsCsv:
    """Writes the rows of batches. ops: JSON, as `ViewPlan.steps` gives them. Names are `printable`."""

    def __init__(self, file: io.TextIOBase, dataset: Dataset, design: Design) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._dataset, self._design = dataset, design
        self._classes = [printable(name) for name in dataset.classes]
        self._writer.writerow(COLUMNS)

    def write(self, batch: PredictedBatch) -> None:
        self._writer.writerows(self._row(batch, row) for row in range(len(batch.rows)))

    def _row(self, batch: PredictedBatch, row: int) -> Sequence[Any]:
        rows, views = batch.rows, batch.views
        partners, shares = views.partner_labels, views.own_share
        return (
            rows.key(row, self._design.ops),
            Kind(rows.kind[row]).name.lower(),
            rows.image[row],
            printable(self._dataset.train.name_of(int(rows.image[row]))),
            self._classes[rows.label[row]],
            "" if rows.epoch[row] < 0 else rows.epoch[row],
            "" if np.isnan(rows.magnitude[row]) else f"{rows.magnitude[row]:.9g}",
            json.dumps(views.steps(row)),
            "" if partners is None else self._classes[partners[row]],
            "" if shares is None else f"{shares[row]:.9g}",
            f"{views.planned_magnitude[row]:.9g}",
            f"{rows.label_prob[row]:.9g}",
            f"{rows.entropy[row]:.9g}",
            self._classes[rows.top1[row]],
            int(rows.agrees[row]),
            int(rows.in_top_k[row]),
        )


@contextmanager
def views_csv(path: Path, dataset: Dataset, design: Design) -> Iterator[ViewsCsv]:
    """The file `path`, which appears complete at the end of the block or not at all."""
    with atomic_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield ViewsCsv(text, dataset, design)
        text.detach()  # flushes it and leaves the file open


def label_errors_csv(dataset: Dataset, table: ViewTable, errors: Sequence[LabelError]) -> str:
    """The text of label-errors.csv: a row for each of `errors`, in their order. Names are `printable`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LABEL_ERROR_COLUMNS)
    images = table.image[table.kind == Kind.UNAUGMENTED]
    classes = [printable(name) for name in dataset.classes]
    for error in errors:
        image = int(images[error.position])
        name = printable(dataset.train.name_of(image))
        probs = f"{error.label_prob:.9g}", f"{error.suggested_prob:.9g}"
        writer.writerow((image, name, classes[error.label], classes[error.suggested], *probs))
    return text.getvalue()
