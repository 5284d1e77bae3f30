"""Loads the dataset that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from kdaug import config
from kdaug.config.datasets import ARRAY_DATASETS, DatasetName
from kdaug.data.folders import load_folder
from kdaug.data.hub import load_hub
from kdaug.data.images import ArrayImages, Dataset, array_dataset, balanced_subset, stratified_rows
from kdaug.data.named import SOURCES, class_names, load_named
from kdaug.data.shards import load_shards
from kdaug.errors import InputError, unknown_choice
from kdaug.rng import Stream, permutation


def _load_named(settings: config.Data) -> Dataset:
    return load_named(settings.name, Path(settings.root), settings.download)


_LOADERS: dict[DatasetName, Callable[[config.Data], Dataset]] = {
    "bundled": lambda _: load_bundled(),
    **dict.fromkeys(SOURCES, _load_named),
    "folder": load_folder,
    "shards": load_shards,
    "hub": load_hub,
}


def load_dataset(settings: config.Data) -> Dataset:
    """The dataset `settings.name`. settings.holdout, then settings.train_images select from its training images.

    A dataset in memory keeps the mean and std of all its training images. Raises InputError if it cannot be loaded.
    """
    if settings.name not in _LOADERS:
        raise unknown_choice("dataset", settings.name, _LOADERS)
    if settings.image_size is not None and not settings.encoded:
        encoded = ", ".join(name for name in _LOADERS if name not in ARRAY_DATASETS)
        raise InputError(
            f"data.image_size is for data.name {encoded}, not {settings.name}",
            "leave it out: other datasets keep their own image size",
        )
    dataset = _LOADERS[settings.name](settings)
    if settings.holdout:
        dataset = _use_holdout(dataset, settings.holdout)
    if settings.train_images is None:
        return dataset
    if settings.train_images > len(dataset.train):
        raise InputError(f"data.train_images is {settings.train_images}, but {dataset.name} has {len(dataset.train)}")
    return replace(dataset, train=dataset.train.subset(balanced_subset(dataset.train.labels, settings.train_images)))


def _use_holdout(dataset: Dataset, fraction: float) -> Dataset:
    """Replaces the validation images by `fraction` of each class's training images, always the same ones."""
    labels = dataset.train.labels
    rank = np.argsort(permutation(0, 0, len(labels), Stream.SUBSET))  # of each image in a random order
    val_rows = stratified_rows(labels, rank, fraction, dataset.classes, f"data.holdout of {dataset.name}")
    train_rows = np.setdiff1d(np.arange(len(labels)), val_rows)
    return replace(dataset, train=dataset.train.subset(train_rows), val=dataset.train.subset(val_rows))


def load_bundled() -> Dataset:
    """The 10,000 training and 2,000 test images of Fashion-MNIST in the package; see bundled/README.md."""
    return array_dataset("bundled", class_names("fashion-mnist"), _read_bundled("train"), _read_bundled("test"))


def _read_bundled(split: str) -> ArrayImages:
    """The images of a split, stored as one PNG with 100 images of 28x28 pixels in a row, and their labels."""
    folder = resources.files("kdaug.data") / "bundled"
    with (folder / f"{split}.png").open("rb") as file:
        sheet = np.asarray(Image.open(file))
    images = sheet.reshape(-1, 28, 100, 28).swapaxes(1, 2).reshape(-1, 28, 28, 1)
    labels = np.frombuffer((folder / f"{split}.labels").read_bytes(), np.uint8)
    return ArrayImages(images, labels.astype(np.int64))
