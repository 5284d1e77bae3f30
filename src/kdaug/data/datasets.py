"""Any data set a recipe can name."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from kdaug import config
from kdaug.data.folders import load_folder
from kdaug.data.hub import load_hub
from kdaug.data.images import (
    ArrayImages,
    Dataset,
    balanced_subset,
    channel_mean_std,
    content_digest,
    stratified_rows,
)
from kdaug.data.named import class_names, load_named
from kdaug.data.shards import load_shards
from kdaug.errors import InputError
from kdaug.rng.philox import Stream, permutation

_ENCODED = {"folder": load_folder, "shards": load_shards, "hub": load_hub}


def load_dataset(settings: config.Data) -> Dataset:
    """The data set `settings.name`, with settings.holdout, then settings.train_images, taken from its training images.

    Sets held in memory keep the statistics of all their training images. Raises InputError if it cannot be had.
    """
    if settings.name in _ENCODED:
        dataset = _ENCODED[settings.name](settings)
    elif settings.image_size is not None:
        raise InputError(f"data.image_size is for data.name {', '.join(_ENCODED)}; other sets keep their own size")
    elif settings.name == "bundled":
        dataset = load_bundled()
    else:
        dataset = load_named(settings.name, Path(settings.root), settings.download)
    if settings.holdout:
        dataset = _apply_holdout(dataset, settings.holdout)
    if settings.train_images is None:
        return dataset
    if settings.train_images > len(dataset.train):
        raise InputError(f"data.train_images is {settings.train_images}, but {dataset.name} has {len(dataset.train)}")
    return replace(dataset, train=dataset.train.subset(balanced_subset(dataset.train.labels, settings.train_images)))


def _apply_holdout(dataset: Dataset, share: float) -> Dataset:
    """`share` of each class's training images in place of the test images, always the same ones."""
    labels = dataset.train.labels
    drawn = np.argsort(permutation(0, 0, len(labels), Stream.SUBSET))  # each image's place in the draw
    held = stratified_rows(labels, drawn, share, dataset.classes, f"data.holdout of {dataset.name}")
    kept = np.setdiff1d(np.arange(len(labels)), held)
    return replace(dataset, train=dataset.train.subset(kept), val=dataset.train.subset(held))


def load_bundled() -> Dataset:
    """10,000 training and 2,000 test images of Fashion-MNIST that come with the package; see bundled/README.md."""
    train, val = _read_sheet("train"), _read_sheet("test")
    mean, std = channel_mean_std(train.images)
    return Dataset("bundled", class_names("fashion-mnist"), train, val, (28, 28), mean, std, content_digest(train, val))


def _read_sheet(split: str) -> ArrayImages:
    """The images of a sheet of 100 a row, and their labels."""
    folder = resources.files("kdaug.data") / "bundled"
    with (folder / f"{split}.png").open("rb") as file:
        sheet = np.asarray(Image.open(file))
    images = sheet.reshape(-1, 28, 100, 28).swapaxes(1, 2).reshape(-1, 28, 28, 1)
    labels = np.frombuffer((folder / f"{split}.labels").read_bytes(), np.uint8)
    return ArrayImages(images, labels.astype(np.int64))
