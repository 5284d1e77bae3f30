"""What a dataset of image files contains: images per class, copies, unreadable files. Made before training."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdaug.data.balance import class_counts
from kdaug.data.duplicates import MAX_COMPARED, find_copies
from kdaug.data.fingerprints import concat, fingerprint_images
from kdaug.data.images import Dataset, EncodedImages
from kdaug.errors import InputError, printable
from kdaug.storage import atomic_write

REPORT_NAME = "data-report.json"
TABLE_NAME = "data-report.csv"
_NAMED = 3
_PROBLEMS = {
    "leak": "in training and validation",
    "conflict": "in two classes",
    "leak and conflict": "in training and validation, and in two classes",
    "copy": "twice in one class and split",
}
"""The kinds of copies, the worst first."""


@dataclass(frozen=True)
class ClassCount:
    """A class and the number of its images."""

    name: str
    train: int
    val: int


@dataclass(frozen=True)
class CopyFinding:
    """An image that is a copy of another one. exact: whether the files have equal bytes, or look the same.

    is_leak: one is a training image and the other a validation image. is_conflict: they are of different classes.
    """

    path: str
    other: str
    exact: bool
    is_leak: bool
    is_conflict: bool

    @property
    def problem(self) -> str:
        if self.is_leak:
            return "leak and conflict" if self.is_conflict else "leak"
        return "conflict" if self.is_conflict else "copy"


@dataclass(frozen=True)
class DataReport:
    """What a dataset contains.

    copies: the worst first. unreadable: path and reason of each file that cannot be read. compared: whether similar
    images were searched, not only equal bytes.
    """

    name: str
    val_source: str
    classes: tuple[ClassCount, ...]
    copies: tuple[CopyFinding, ...]
    unreadable: tuple[tuple[str, str], ...]
    compared: bool

    @property
    def imbalance(self) -> float:
        """Training images of the largest class by those of the smallest class that has any."""
        counts = [each.train for each in self.classes if each.train]
        return max(counts) / min(counts)

    @property
    def single(self) -> list[str]:
        """The classes with one training image."""
        return [each.name for each in self.classes if each.train == 1]

    @property
    def not_validated(self) -> list[str]:
        """The classes without validation images."""
        return [each.name for each in self.classes if not each.val]

    def as_dict(self) -> dict[str, Any]:
        """The content of data-report.json."""
        return {
            "name": self.name,
            "validation": self.val_source,
            "training_images": sum(each.train for each in self.classes),
            "validation_images": sum(each.val for each in self.classes),
            "imbalance": self.imbalance,
            "classes": [{"class": each.name, "train": each.train, "val": each.val} for each in self.classes],
            "classes_with_one_training_image": self.single,
            "classes_without_validation_images": self.not_validated,
            "similar_images_searched": self.compared,
            "copies": [
                {"path": each.path, "problem": each.problem, "match": _match(each), "other": each.other}
                for each in self.copies
            ],
            "unreadable": [{"path": path, "reason": reason} for path, reason in self.unreadable],
        }

    def summary(self) -> list[str]:
        """One line for the sizes of the classes, and one for each kind of finding."""
        smallest = min((each for each in self.classes if each.train), key=lambda each: each.train)
        largest = max(self.classes, key=lambda each: each.train)
        counts = (
            f"{smallest.train:,} training images each"
            if smallest.train == largest.train
            else f"{smallest.train:,} ({smallest.name}) to {largest.train:,} ({largest.name}) training images, "
            f"imbalance {self.imbalance:.1f}"
        )
        lines = [f"{len(self.classes):,} classes with {counts}"]
        lines += _named("with one training image", self.single)
        lines += _named("without validation images", self.not_validated)
        if self.unreadable:
            path, reason = self.unreadable[0]
            lines.append(f"{len(self.unreadable):,} unreadable file(s), such as {path} ({reason})")
        for problem, text in _PROBLEMS.items():
            if found := [each for each in self.copies if each.problem == problem]:
                exact, first = sum(each.exact for each in found), found[0]
                lines.append(
                    f"{len(found):,} image(s) {text} ({exact:,} with equal bytes, {len(found) - exact:,} similar), "
                    f"such as {first.path} and {first.other}"
                )
        if not self.compared:
            lines.append(f"similar images were not searched: there are more than {MAX_COMPARED:,} images")
        return [printable(line) for line in lines]

    @property
    def findings(self) -> int:
        """The number of rows of data-report.csv."""
        return len(self.copies) + len(self.unreadable)


def _named(what: str, classes: list[str]) -> list[str]:
    more = ", ..." if len(classes) > _NAMED else ""
    return [f"{len(classes):,} class(es) {what}: {', '.join(classes[:_NAMED])}{more}"] if classes else []


def _match(copy: CopyFinding) -> str:
    return "equal bytes" if copy.exact else "similar"


def make_report(dataset: Dataset, before_batch: Callable[[int], None] = lambda done: None) -> DataReport:
    """Reads all training and validation images of `dataset` once, and compares them.

    before_batch: is called with the number of images that are done; its exceptions end the work. Raises InputError for
    a dataset in memory.
    """
    train, val = dataset.train, dataset.val
    if not isinstance(train, EncodedImages) or not isinstance(val, EncodedImages):
        raise InputError(f"the images of {dataset.name} are not files", "set data.name to folder, shards or hub")
    prints = concat(
        fingerprint_images(train, before_batch), fingerprint_images(val, lambda done: before_batch(len(train) + done))
    )
    total = len(prints)
    labels = np.concatenate([train.labels, val.labels])

    def name_of(row: int) -> str:
        return train.name_of(row) if row < len(train) else val.name_of(row - len(train))

    copies = find_copies(prints, labels, lambda: before_batch(total))
    found = [
        CopyFinding(name_of(row), name_of(other), exact, other < len(train) <= row, bool(labels[row] != labels[other]))
        for row, other, exact in zip(*(column.tolist() for column in vars(copies).values()), strict=True)
    ]
    counts = (class_counts(images.labels, len(dataset.classes)).tolist() for images in (train, val))
    return DataReport(
        dataset.name,
        dataset.val_source,
        tuple(map(ClassCount, dataset.classes, *counts)),
        tuple(sorted(found, key=lambda each: list(_PROBLEMS).index(each.problem))),
        tuple((name_of(row), reason) for row, reason in prints.unreadable.items()),
        compared=total <= MAX_COMPARED,
    )


def write_table(report: DataReport, path: Path) -> None:
    """Writes a row per finding, the worst first: path, problem, other path, detail. UTF-8; bytes of names are kept."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "problem", "other", "detail"])
    writer.writerows((path, "unreadable", "", reason) for path, reason in report.unreadable)
    writer.writerows((each.path, each.problem, each.other, _match(each)) for each in report.copies)
    atomic_write(path, out.getvalue().encode("utf-8", "surrogateescape"))


def write_report(report: DataReport, folder: Path) -> None:
    """Writes data-report.csv, then data-report.json, into `folder`."""
    write_table(report, folder / TABLE_NAME)
    atomic_write(folder / REPORT_NAME, json.dumps(report.as_dict(), indent=1) + "\n")
