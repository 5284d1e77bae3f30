"""Loads the dataset that a recipe names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug import config
from kdaug.config.datasets import ARRAY_DATASETS, DatasetName
from kdaug.data.folders import load_folder
from kdaug.data.hub import load_hub
from kdaug.data.images import (
    ArrayImages,
    Dataset,
    Images,
    array_dataset,
    balanced_subset,
    digest,
    fold_of_images,
    log_dataset,
    stratified_rows,
)
from kdaug.data.named import SOURCES, class_names, load_named
from kdaug.data.shards import load_shards
from kdaug.data.unlabelled import read_unlabelled_folder, without_labels
from kdaug.errors import InputError, unknown_choice
from kdaug.rng import Stream, permutation


def _load_named(settings: config.Data, val_fraction: float | None) -> Dataset:
    return load_named(settings.name, Path(settings.root), settings.download)


_LOADERS: dict[DatasetName, Callable[[config.Data, float | None], Dataset]] = {
    "bundled": lambda settings, val_fraction: load_bundled(),
    "omniglot": lambda settings, val_fraction: load_omniglot(),
    **dict.fromkeys(SOURCES, _load_named),
    "folder": load_folder,
    "shards": load_shards,
    "hub": load_hub,
}


def load_dataset(settings: config.Data) -> Dataset:
    """The dataset `settings.name`, with the training images that `select_images` selects and its unlabelled images.

    A dataset in memory keeps the mean and std of all its training images. Logs the classes, where the validation images
    come from, and what was passed over, unless the dataset has one fixed split. Raises InputError if it cannot be
    loaded.
    """
    stored = read_dataset(settings, settings.val_fraction)
    dataset = _add_unlabelled(select_images(stored, settings), stored, settings)
    if settings.encoded or settings.holdout or settings.measure_unused:  # the splits of all others are always the same
        log_dataset(dataset)
    return dataset


def select_images(dataset: Dataset, settings: config.Data) -> Dataset:
    """`dataset` with the images that settings.holdout, then .train_images, then .omit_fold leave for training.

    With settings.measure_unused, its validation images are its own and those that settings.train_images leaves out.
    """
    own_val = dataset.val
    if settings.holdout:
        dataset = _use_holdout(dataset, settings.holdout)
    if settings.train_images is not None:
        rows = _subset_rows(dataset, settings.train_images)
        if settings.measure_unused:
            unused = _others(dataset.train, rows)
            val, source = _concatenate(own_val, unused), _describe_unused(len(unused))
            dataset = replace(dataset, val=val, val_source=source)
        dataset = replace(dataset, train=dataset.train.subset(rows))
    if settings.omitted_fold is None:
        return dataset
    fold, folds = settings.omitted_fold
    kept = np.flatnonzero(fold_of_images(dataset.train.labels, folds) != fold)
    return replace(dataset, train=dataset.train.subset(kept))


def _subset_rows(dataset: Dataset, count: int) -> NDArray[np.int64]:
    """The rows of `count` training images, for data.train_images."""
    if count > len(dataset.train):
        raise InputError(f"data.train_images is {count}, but {dataset.name} has {len(dataset.train)}")
    return balanced_subset(dataset.train.labels, count)


def _others(images: Images, rows: NDArray[np.int64]) -> Images:
    """The images that are not at `rows`."""
    return images.subset(np.setdiff1d(np.arange(len(images)), rows))


def _add_unlabelled(dataset: Dataset, stored: Dataset, settings: config.Data) -> Dataset:
    """`dataset` with the images of settings.unlabelled; stored: with all its training images."""
    if settings.unlabelled is None:
        return dataset
    if settings.encoded:
        unlabelled, names = read_unlabelled_folder(Path(settings.unlabelled), apart_from=Path(settings.root))
        return replace(dataset, unlabelled=unlabelled, unlabelled_content=digest(b"\0".join(names)))
    whole = _use_holdout(stored, settings.holdout) if settings.holdout else stored
    assert settings.train_images is not None  # see `check`
    unused = _others(whole.train, _subset_rows(whole, settings.train_images))
    assert isinstance(unused, ArrayImages)
    return replace(dataset, unlabelled=without_labels(unused))


def _concatenate(first: Images, second: Images) -> ArrayImages:
    """Both, which are in memory: `check` refuses data.measure_unused for files."""
    assert isinstance(first, ArrayImages)
    assert isinstance(second, ArrayImages)
    return ArrayImages(np.concatenate([first.images, second.images]), np.concatenate([first.labels, second.labels]))


def _describe_unused(count: int) -> str:
    return f"its test images and {count:,} training images that are not trained on (data.measure_unused)"


def read_dataset(settings: config.Data, val_fraction: float | None) -> Dataset:
    """The dataset `settings.name` with all its training images.

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
    splits = {}
    for split in ("train", "test"):
        labels = np.frombuffer((resources.files("kdaug.data") / "bundled" / f"{split}.labels").read_bytes(), np.uint8)
        splits[split] = ArrayImages(_read_sheet("bundled", split, columns=100), labels.astype(np.int64))
    return array_dataset("bundled", class_names("fashion-mnist"), splits["train"], splits["test"])


def load_omniglot() -> Dataset:
    """The 2,420 training and 2,420 test images of Omniglot characters in the package; see omniglot/README.md."""
    names = (resources.files("kdaug.data") / "omniglot" / "classes.txt").read_text(encoding="utf-8").splitlines()
    labels = np.repeat(np.arange(len(names)), 10)
    train, test = (ArrayImages(_read_sheet("omniglot", split, columns=110), labels) for split in ("train", "test"))
    return array_dataset("omniglot", tuple(names), train, test)


def _read_sheet(folder: str, split: str, columns: int) -> NDArray[np.uint8]:
    """The images of a split, uint8 [N,28,28,1], stored as one PNG with `columns` images in a row."""
    with (resources.files("kdaug.data") / folder / f"{split}.png").open("rb") as file:
        sheet = np.asarray(Image.open(file))
    return sheet.reshape(-1, 28, columns, 28).swapaxes(1, 2).reshape(-1, 28, 28, 1)
