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


def load_hub(settings: config.Data) -> Dataset:
    """The Hugging Face dataset `settings.root`: OWNER/NAME (or OWNER/NAME:CONFIGURATION) on the hub, or a folder of
    parquet or image files, or one written by save_to_disk.

    Uses its first column of images and its first column of class labels. The training split is `train`; the validation
    split is the first of val, valid, validation and test that has labels. Without one, `settings.val_fraction` of each
    training class is held out. Raises InputError if the dataset cannot be loaded, or lacks a column or `train`.
    """
    splits = _load_splits(settings.root)
    train_name = next((name for name in TRAIN_NAMES if name in splits), None)
    if train_name is None:
        raise InputError(f"dataset {settings.root} has no split train, but {', '.join(splits)}")
    image, label = _find_columns(splits[train_name], settings.root)
    classes = tuple(splits[train_name].features[label].names)
    train = files, labels = _read_split(splits, train_name, image, label, settings.root)
    if (labels < 0).any():
        raise InputError(
            f"{settings.root} {train_name} row {int(labels.argmin())} has no label", "remove the rows without a label"
        )
    val_name = next((name for name in VAL_NAMES if name in splits and _has_labels(splits[name], label)), None)
    if val_name is None:
        names = [b"%d" % row for row in range(len(labels))]
        rows_of_splits = split_off_validation(labels, names, classes, settings.val_fraction, f"dataset {settings.root}")
        train, val = ((files.take(rows), labels[rows]) for rows in rows_of_splits)
    else:
        if splits[val_name].features != splits[train_name].features:
            raise InputError(f"splits {train_name} and {val_name} of {settings.root} do not have the same columns")
        val = _read_split(splits, val_name, image, label, settings.root)
    content = digest("\n".join(classes).encode(), *_content(*train), *_content(*val))
    return encoded_dataset(settings, classes, EncodedImages(*train), EncodedImages(*val), content)


def _has_labels(split: Any, label: str) -> bool:
    """Whether all rows have a label; -1 means none."""
    return label in split.features and len(split) > 0 and int(np.min(split.with_format("numpy")[label][:])) >= 0


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


def _find_columns(split: Any, root: str) -> tuple[str, str]:
    """The first column of images and the first of class labels."""
    # reversed, so that the first column of each type is the one that stays
    first = {type(feature).__name__: name for name, feature in reversed(split.features.items())}
    for kind in ("Image", "ClassLabel"):
        if kind not in first:
            raise InputError(f"dataset {root} has no column of type {kind}; it has {', '.join(split.features)}")
    return first["Image"], first["ClassLabel"]


def _read_split(splits: Mapping[str, Any], split: str, image: str, label: str, root: str) -> _Split:
    table, image_type = splits[split], type(splits[split].features[image])
    labels = np.asarray(table.with_format("numpy", columns=[label])[:][label], np.int64)
    encoded = table.select_columns([image]).cast_column(image, image_type(decode=False))
    return HubImages(f"{root} {split}", encoded, np.arange(len(labels))), labels
