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
from kdaug.data.images import ArrayImages, Dataset, array_dataset, balanced_subset, log_dataset, stratified_rows
from kdaug.data.named import SOURCES, class_names, load_named
from kdaug.data.shards import load_shards
from kdaug.errors import InputError, unknown_choice
from kdaug.rng import Stream, permutation


def _load_named(settings: config.Data, val_fraction: float | None) -> Dataset:
    return load_named(settings.name, Path(settings.root), settings.download)


_LOADERS: dict[DatasetName, Callable[[config.Data, float | None], Dataset]] = {
    "bundled": lambda settings, val_fraction: load_bundled(),
    **dict.fromkeys(SOURCES, _load_named),
    "folder": load_folder,
    "shards": load_shards,
    "hub": load_hub,
}


def load_dataset(settings: config.Data) -> Dataset:
    """The dataset `settings.name`. settings.holdout, then settings.train_images select from its training images.

    A dataset in memory keeps the mean and std of all its training images. Logs the classes, where the validation images
    come from, and what was passed over, unless the dataset has one fixed split. Raises InputError if it cannot be
    loaded.
    """
    dataset = select_images(read_dataset(settings, settings.val_fraction), settings)
    if settings.encoded or settings.holdout:  # the splits of all others are always the same
        log_dataset(dataset)
    return dataset


def select_images(dataset: Dataset, settings: config.Data) -> Dataset:
    """`dataset` with the images that settings.holdout, then settings.train_images select from its training images."""
    if settings.holdout:
        dataset = _use_holdout(dataset, settings.holdout)
    if settings.train_images is None:
        return dataset
    if settings.train_images > len(dataset.train):
        raise InputError(f"data.train_images is {settings.train_images}, but {dataset.name} has {len(dataset.train)}")
    return replace(dataset, train=dataset.train.subset(balanced_subset(dataset.train.labels, settings.train_images)))


def read_dataset(settings: config.Data, val_fraction: float | None) -> Dataset:
    """The dataset `settings.name` as it is stored, without settings.holdout and settings.train_images.

    val_fraction: the fraction of each class used for validation if the dataset has no validation images; None: all its
    images are validation images then, as for an evaluation. Logs nothing. Raises InputError if it cannot be loaded.
    """
    if settings.name not in _LOADERS:
        raise unknown_choice("dataset", settings.name, _LOADERS)
    if settings.image_size is not None and not settings.encoded:
        encoded = ", ".join(name for name in _LOADERS if name not in ARRAY_DATASETS)
        raise InputError(
            f"data.image_size is for data.name {encoded}, not {settings.name}",
            "leave it out: other datasets keep their own image size",
        )
    return _LOADERS[settings.name](settings, val_fraction)


def _use_holdout(dataset: Dataset, fraction: float) -> Dataset:
    """Replaces the validation images by `fraction` of each class's training images, always the same ones."""
    labels = dataset.train.labels
    rank = np.argsort(permutation(0, 0, len(labels), Stream.SUBSET))  # of each image in a random order
    val_rows = stratified_rows(labels, rank, fraction, dataset.classes, f"data.holdout of {dataset.name}")
    train, val = dataset.train.subset(np.setdiff1d(np.arange(len(labels)), val_rows)), dataset.train.subset(val_rows)
    source = f"{100 * fraction:g} % of the training images of each class (data.holdout)"
    return replace(dataset, train=train, val=val, val_source=source)


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
