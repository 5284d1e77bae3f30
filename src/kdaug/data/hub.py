"""Hugging Face data sets: from the hub, or a folder of theirs on disk; images are decoded by us, as all others."""

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
from kdaug.data.folders import DEFAULT_SIZE, IMAGENET_MEAN, IMAGENET_STD, TRAIN_NAMES, VAL_NAMES
from kdaug.data.images import Dataset, EncodedImages, digest, hold_out
from kdaug.errors import InputError


@dataclass(frozen=True)
class HubImage:
    """The image in `row` of a table whose one column holds {bytes, path}."""

    name: str
    row: int
    table: Any = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.name} row {self.row}"

    def read_bytes(self) -> bytes:
        (encoded,) = self.table[self.row].values()
        if encoded is None or (encoded["bytes"] is None and not encoded["path"]):
            raise OSError("the row holds no image")
        content: bytes | None = encoded["bytes"]
        return Path(encoded["path"]).read_bytes() if content is None else content


@dataclass(frozen=True)
class HubImages:
    """The `rows` int64 [N] of a split called `name`, whose images `table` has, not decoded."""

    name: str
    table: Any
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> HubImage:
        return HubImage(self.name, int(self.rows[row]), self.table)

    def take(self, rows: NDArray[np.int64]) -> HubImages:
        """Those at `rows`."""
        return HubImages(self.name, self.table, self.rows[rows])


def load_hub(settings: config.Data) -> Dataset:
    """The Hugging Face data set `settings.root`: OWNER/NAME of the hub (or OWNER/NAME:CONFIGURATION), or a folder (of
    parquet files, say, or one that save_to_disk wrote).

    Its first column of images, its first column of class labels; splits train, and the first with labels of val, valid,
    validation and test; without that, `settings.val_fraction` of each class of train is held out. Raises InputError if
    it cannot be had or has not these.
    """
    splits = _load(settings.root)
    train_name = next((name for name in TRAIN_NAMES if name in splits), None)
    if train_name is None:
        raise InputError(f"data set {settings.root} has no split train, but {', '.join(splits)}")
    image, label = _columns(splits[train_name], settings.root)
    classes = tuple(splits[train_name].features[label].names)
    train = _images(splits, train_name, image, label, settings.root)
    if (train.labels < 0).any():
        row = int(train.labels.argmin())
        raise InputError(f"{settings.root} {train_name} row {row} has no label; there is nothing to learn from it")
    val_name = next((name for name in VAL_NAMES if name in splits and _has_labels(splits[name], label)), None)
    if val_name is None:
        names = [b"%d" % row for row in range(len(train))]
        train, val = hold_out(train, names, classes, settings.val_fraction, f"data set {settings.root}")
    else:
        if splits[val_name].features != splits[train_name].features:
            raise InputError(f"splits {train_name} and {val_name} of {settings.root} have not the same columns")
        val = _images(splits, val_name, image, label, settings.root)
    side = settings.image_size or DEFAULT_SIZE
    content = digest("\n".join(classes).encode(), *_facts(train), *_facts(val))
    name = Path(settings.root).name
    return Dataset(name, classes, train, val, (side, side), IMAGENET_MEAN, IMAGENET_STD, content)


def _has_labels(split: Any, label: str) -> bool:
    """Whether all rows have one; -1 stands for none."""
    return label in split.features and len(split) > 0 and int(np.min(split.with_format("numpy")[label][:])) >= 0


def _facts(images: EncodedImages) -> list[NDArray[Any]]:
    """What tells these images from others without reading them: labels, and sizes in bytes or names of files."""
    assert isinstance(images.files, HubImages)
    files = images.files
    (column,) = files.table.data.columns
    compute = import_module("pyarrow.compute")
    sizes = compute.fill_null(compute.binary_length(compute.struct_field(column, "bytes")), -1).to_numpy()
    names = [Path(path or "").name for path in compute.struct_field(column, "path").to_pylist()]
    return [images.labels, sizes[files.rows], np.array(names, np.str_)[files.rows]]


def _load(root: str) -> Mapping[str, Any]:
    """The splits by name."""
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise InputError("data.name hub needs the library datasets; pip install 'kdaug[hub]'") from None
    place, colon, configuration = root.rpartition(":")
    if not colon or Path(root).exists():
        place, configuration = root, ""
    if "/" not in place and not Path(place).exists():
        raise InputError(f"data set {root}: there is no such folder, and of the hub it is OWNER/NAME; give one of them")
    for library in ("datasets", "huggingface_hub"):
        logging.getLogger(library).setLevel(logging.ERROR)  # their many retries are told in one line in the end
    try:
        if (Path(place) / "dataset_dict.json").is_file():
            splits: Mapping[str, Any] = datasets.load_from_disk(place)
        elif (Path(place) / "state.json").is_file():
            splits = {"train": datasets.load_from_disk(place)}
        else:
            splits = datasets.load_dataset(place, configuration or None)
    except Exception as error:  # of the network, of the hub, of whatever format the files have
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"data set {root} cannot be had: {reason}; give OWNER/NAME or a folder, and :CONFIGURATION if there are "
            "several"
        ) from None
    return splits


def _columns(split: Any, root: str) -> tuple[str, str]:
    """The first column of images and the first of class labels."""
    found = []
    for kind in ("Image", "ClassLabel"):
        name = next((name for name, feature in split.features.items() if type(feature).__name__ == kind), None)
        if name is None:
            raise InputError(f"data set {root} has no column of type {kind}; it has {', '.join(split.features)}")
        found.append(name)
    return found[0], found[1]


def _images(splits: Mapping[str, Any], split: str, image: str, label: str, root: str) -> EncodedImages:
    table, image_type = splits[split], type(splits[split].features[image])
    labels = np.asarray(table.with_format("numpy", columns=[label])[:][label], np.int64)
    encoded = table.select_columns([image]).cast_column(image, image_type(decode=False))
    return EncodedImages(HubImages(f"{root} {split}", encoded, np.arange(len(labels))), labels)
