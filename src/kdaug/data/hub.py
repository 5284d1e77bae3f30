"""Hugging Face datasets, from the hub or from a folder. Images are decoded by `kdaug.data.decode`, as all others."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug import config
from kdaug.data.images import (
    TRAIN_NAMES,
    VAL_NAMES,
    Dataset,
    EncodedImages,
    Labels,
    describe_hold_out,
    digest,
    encoded_dataset,
    split_off_validation,
)
from kdaug.errors import InputError, one_line


@dataclass(frozen=True)
class HubImage:
    """The encoded image in `row` of a table with one column of {bytes, path}."""

    name: str
    row: int
    table: Any = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.name} row {self.row}"

    def read_bytes(self) -> bytes:
        (encoded,) = self.table[self.row].values()
        if encoded is None or (encoded["bytes"] is None and not encoded["path"]):
            raise OSError("the row has no image")
        content: bytes | None = encoded["bytes"]
        return Path(encoded["path"]).read_bytes() if content is None else content


@dataclass(frozen=True)
class HubImages:
    """The encoded images of a split called `name`: rows int64 [N] of `table`."""

    name: str
    table: Any
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> HubImage:
        return HubImage(self.name, int(self.rows[row]), self.table)

    def take(self, rows: NDArray[np.int64]) -> HubImages:
        """The images at `rows`."""
        return HubImages(self.name, self.table, self.rows[rows])


_Split = tuple[HubImages, Labels]
_LABEL_NAMES = ("label", "labels", "class", "target", "category", "y", "label_name", "class_name", "fine_label")


@dataclass(frozen=True)
class _Columns:
    """The columns of images and labels. values: of the classes, in label order, in a plain column; None: ClassLabel."""

    image: str
    label: str
    classes: tuple[str, ...]
    values: list[Any] | None

    def read_labels(self, split: Any) -> Labels:
        """The label of each row of `split`, int64 [N]; -1: none; -2: a value that is not among the classes."""
        if self.values is None:
            return np.asarray(split.with_format("numpy", columns=[self.label])[:][self.label], np.int64)
        number_of = {value: number for number, value in enumerate(self.values)} | {None: -1}
        values = split.with_format(None).select_columns([self.label])[:][self.label]
        return np.array([number_of.get(value, -2) for value in values], np.int64)


def load_hub(settings: config.Data, val_fraction: float | None) -> Dataset:
    """The Hugging Face dataset `settings.root`: OWNER/NAME (or OWNER/NAME:CONFIGURATION) on the hub, or a folder of
    parquet or image files, or one written by save_to_disk.

    Uses its first column of images and its first column of class labels; without one, a column of integers, strings or
    booleans that is called label or similar, or is the only one, whose sorted values are the classes. The training
    split is `train`; the validation split is the first of VAL_NAMES that has labels. Without one, `val_fraction` of
    each training class is held out; None: all images are in both splits. Raises InputError if the dataset cannot be
    loaded, or lacks a column or `train`.
    """
    root, splits = settings.root, _load_splits(settings.root)
    train_name = next((name for name in TRAIN_NAMES if name in splits), None)
    if train_name is None:
        raise InputError(f"dataset {root} has no split train, but {', '.join(splits)}")
    columns = _find_columns(splits[train_name], root)
    train = files, labels = _read_split(splits, train_name, columns, root)
    if (labels < 0).any():
        raise InputError(
            f"{root} {train_name} row {int(labels.argmin())} has no label", "remove the rows without a label"
        )
    if len(columns.classes) < 2:
        raise InputError(f"dataset {root} has one class only ({', '.join(columns.classes)})", "training needs two")
    val_name = next((name for name in VAL_NAMES if name in splits and _has_labels(splits[name], columns)), None)
    if val_name is None:
        names = [b"%d" % row for row in range(len(labels))]
        both = split_off_validation(labels, names, columns.classes, val_fraction, f"dataset {root}")
        train, val = ((files.take(rows), labels[rows]) for rows in both)
        source = describe_hold_out(val_fraction)
    else:
        if splits[val_name].features != splits[train_name].features:
            raise InputError(f"splits {train_name} and {val_name} of {root} do not have the same columns")
        val, source = _read_split(splits, val_name, columns, root), f"the split {val_name}"
        if (val[1] < 0).any():
            row = int(val[1].argmin())
            value = splits[val_name].with_format(None).select_columns([columns.label])[row][columns.label]
            raise InputError(f"{root} {val_name} row {row} has the label {value!r}, which {train_name} lacks")
    content = digest("\n".join(columns.classes).encode(), *_content(*train), *_content(*val))
    unused = [f"split {name} ({len(splits[name]):,} rows)" for name in splits if name not in (train_name, val_name)]
    images = EncodedImages(*train), EncodedImages(*val)
    return encoded_dataset(settings, columns.classes, *images, content, source, unused)


def _has_labels(split: Any, columns: _Columns) -> bool:
    """Whether all rows have a label. A ClassLabel of -1 is none. If no value is a class of train, none is a label."""
    if columns.label not in split.features or not len(split):
        return False
    labels = columns.read_labels(split)
    return bool((labels != -1).all() and (labels != -2).any())


def _content(files: HubImages, labels: Labels) -> list[NDArray[Any]]:
    """What `Dataset.content` is computed from: labels, sizes in bytes, and file names. Reads no image."""
    (column,) = files.table.data.columns
    compute = import_module("pyarrow.compute")
    sizes = compute.fill_null(compute.binary_length(compute.struct_field(column, "bytes")), -1).to_numpy()
    names = [Path(path or "").name for path in compute.struct_field(column, "path").to_pylist()]
    return [labels, sizes[files.rows], np.array(names, np.str_)[files.rows]]


def _load_splits(root: str) -> Mapping[str, Any]:
    """The splits of a dataset by name, as datasets.Dataset."""
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise InputError("data.name hub needs the package datasets", "pip install 'kdaug[hub]'") from None
    path, colon, configuration = root.rpartition(":")
    if not colon or Path(root).exists():
        path, configuration = root, ""
    if "/" not in path and not Path(path).exists():
        raise InputError(
            f"dataset {root} is neither a folder nor OWNER/NAME of the hub", "set data.root to one of these"
        )
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)  # they warn at every retry; one error at the end is enough
    try:
        if (Path(path) / "dataset_dict.json").is_file():
            splits: Mapping[str, Any] = datasets.load_from_disk(path)
        elif (Path(path) / "state.json").is_file():
            splits = {"train": datasets.load_from_disk(path)}
        else:
            splits = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # of any type: from the network, the hub, or a parser of one of many file formats
        raise InputError(
            f"dataset {root} cannot be loaded: {one_line(error)}",
            "set data.root to OWNER/NAME or a folder, and append :CONFIGURATION if there are several",
        ) from None
    return splits


def _find_columns(split: Any, root: str) -> _Columns:
    """The first column of images and that of the labels."""
    # reversed, so that the first column of each type is the one that stays
    first = {type(feature).__name__: name for name, feature in reversed(split.features.items())}
    if "Image" not in first:
        raise InputError(f"dataset {root} has no column of type Image; it has {', '.join(split.features)}")
    if "ClassLabel" in first:
        label = first["ClassLabel"]
        return _Columns(first["Image"], label, tuple(split.features[label].names), None)
    label = _find_plain_label(split, root)
    values = sorted(value for value in split.unique(label) if value is not None)
    return _Columns(first["Image"], label, tuple(map(str, values)), values)


def _find_plain_label(split: Any, root: str) -> str:
    """The column of integers, strings or booleans that has the labels: by its name, or the only one.

    One that has another value in every row is not a label, but a number or name of the row.
    """
    plain = [
        name
        for name, feature in split.features.items()
        if _is_plain(feature) and not 2 < len(split) == len(split.unique(name))
    ]
    by_name = {name.lower(): name for name in reversed(plain)}
    named = [by_name[name] for name in _LABEL_NAMES if name in by_name]
    if not named and len(plain) != 1:
        raise InputError(
            f"dataset {root} has no column of type ClassLabel; it has {', '.join(split.features)}, none of integers or "
            "strings with a name such as label",
            "rename the column of the labels to label",
        )
    label: str = (named or plain)[0]
    return label


def _is_plain(feature: Any) -> bool:
    kind = str(getattr(feature, "dtype", ""))
    return type(feature).__name__ == "Value" and kind.startswith(("int", "uint", "string", "large_string", "bool"))


def _read_split(splits: Mapping[str, Any], split: str, columns: _Columns, root: str) -> _Split:
    table, image_type = splits[split], type(splits[split].features[columns.image])
    encoded = table.select_columns([columns.image]).cast_column(columns.image, image_type(decode=False))
    labels = columns.read_labels(table)
    return HubImages(f"{root} {split}", encoded, np.arange(len(labels))), labels
