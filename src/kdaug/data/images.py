"""The classes that every dataset is loaded into, and selections of images."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kdaug import config
from kdaug.errors import InputError, printable
from kdaug.rng import Stream, permutation

_logger = logging.getLogger(__name__)
Labels = NDArray[np.int64]
TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "dev", "eval", "evaluation", "test", "testing")
TEST_NAMES = ("test", "testing")
"""Those of VAL_NAMES that often have no labels; then validation images are held out of the training images."""
_CLASSES_NAMED = 5
_MAX_ID = (1 << 63) - 1
_FURTHER_USE_SHIFT = 40
"""Sample IDs of further uses of an image differ from its own in the bits from this one on, modulo 2^63."""
_COUNTED_AT_ONCE = 1_000
"""Images whose values are counted at once."""
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ArrayImages:
    """Images in memory: `images` uint8 [N,H,W,C] with C 1 or 3, `labels` int64 [N].

    The index of an image is its row, or its row + k N for its use k + 1 in an epoch with balanced classes
    (`kdaug.data.balance.balanced_order`).
    """

    images: NDArray[np.uint8]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def sample_ids(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The `indices` that `Policy.plan` gets for the images at `indices`: these themselves."""
        return indices

    def name_of(self, index: int) -> str:
        """The name of the image at `index` for messages."""
        return f"#{index % len(self)}"

    def subset(self, rows: NDArray[np.int64]) -> ArrayImages:
        """The images at `rows`."""
        return ArrayImages(self.images[rows], self.labels[rows])


class ImageFile(Protocol):
    """An encoded image: a Path, or a part of a larger file. Messages name it by its str."""

    def read_bytes(self) -> bytes: ...


class ImageFiles(Protocol):
    """Encoded images. Each ImageFile is made when it is indexed, so a million of them take little memory."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> ImageFile: ...
    def take(self, rows: NDArray[np.int64]) -> Self:
        """The files at `rows`."""
        ...


@dataclass(frozen=True)
class EncodedImages:
    """Images that are decoded when a batch is loaded: `files` [N], `labels` int64 [N]. Indices: see `ArrayImages`.

    ids: int64 [N], non-negative, see `sample_ids`; None: the rows.
    """

    files: ImageFiles
    labels: Labels
    ids: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def sample_ids(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """The `indices` that `Policy.plan` and `ImageCrop.box` get for the images at `indices`."""
        if self.ids is None:
            return indices
        further_use, row = np.divmod(indices, len(self))
        return (self.ids[row] + (further_use << _FURTHER_USE_SHIFT)) & _MAX_ID

    def name_of(self, index: int) -> str:
        """The name of the image at `index` for messages."""
        return str(self.files[index % len(self)])

    def subset(self, rows: NDArray[np.int64]) -> EncodedImages:
        """The images at `rows`."""
        return EncodedImages(self.files.take(rows), self.labels[rows], None if self.ids is None else self.ids[rows])


Images = ArrayImages | EncodedImages


@dataclass(frozen=True)
class Dataset:
    """Training and validation images of the same classes.

    size: (height, width) of the network's input in pixels. mean, std: per channel (1 or 3), in 0..1; of all training
    images if they are in memory, else ImageNet's.
    content: a digest that changes if an image is added, removed, or moved to another class or split. It is computed
    from pixels if images are in memory, else from file names; from all training images, even if a subset is used.
    val_source: where the validation images come from, for messages. passed_over: files and folders that are not used,
    for messages. unlabelled: training images without labels, see `kdaug.data.unlabelled`. unlabelled_content: a digest
    of their file names; empty if they are in memory, where `content` counts them.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content: str
    val_source: str = "its test images"
    passed_over: tuple[str, ...] = ()
    unlabelled: Images | None = None
    unlabelled_content: str = ""

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean as an RGB color in 0..255."""
        color = [round(255 * value) for value in self.mean]
        return (color[0], color[0], color[0]) if len(color) == 1 else (color[0], color[1], color[2])

    @property
    def described_classes(self) -> str:
        """The number of classes and the first names, such as "2 classes (cat, dog)"."""
        more = ", ..." if len(self.classes) > _CLASSES_NAMED else ""
        return f"{len(self.classes):,} classes ({', '.join(map(printable, self.classes[:_CLASSES_NAMED]))}{more})"


def log_dataset(dataset: Dataset) -> None:
    """Logs classes, number of images, where validation images come from, and what was passed over."""
    _logger.info(
        f"data: {dataset.name}: {dataset.described_classes}, {len(dataset.train):,} training images; validation: "
        f"{len(dataset.val):,} images, {dataset.val_source}"
    )
    log_passed_over(dataset)


def log_passed_over(dataset: Dataset) -> None:
    """Logs the files and folders of a dataset that are not used, if there are any."""
    if dataset.passed_over:
        _logger.info(f"data: {dataset.name}: passed over: {'; '.join(dataset.passed_over)}")


def digest(*parts: bytes | NDArray[Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the concatenated bytes of `parts`."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part if isinstance(part, bytes) else part.ravel().data)
    return sha256.hexdigest()[:16]


def array_dataset(name: str, classes: tuple[str, ...], train: ArrayImages, val: ArrayImages) -> Dataset:
    """The dataset of images in memory; mean and std are those of `train`."""
    mean, std = channel_mean_std(train.images)
    height, width = train.images.shape[1:3]
    content = digest(train.images, train.labels, val.images, val.labels)
    return Dataset(name, classes, train, val, (height, width), mean, std, content)


def encoded_dataset(
    settings: config.Data,
    classes: tuple[str, ...],
    train: EncodedImages,
    val: EncodedImages,
    content: str,
    val_source: str,
    passed_over: Sequence[str] = (),
) -> Dataset:
    """The dataset of encoded images, resized to settings.image_size (None: 224), with ImageNet's mean and std."""
    name, size = Path(os.path.abspath(settings.root)).name, (settings.side, settings.side)
    statistics = _IMAGENET_MEAN, _IMAGENET_STD
    return Dataset(name, classes, train, val, size, *statistics, content, val_source, tuple(passed_over))


def channel_mean_std(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation per channel of uint8 [N,H,W,C], in 0..1, computed in float64."""
    value = np.arange(256) / 255
    means, deviations = [], []
    for counts in _count_values(images):
        share = counts / counts.sum()
        mean = float(share @ value)
        means.append(mean)
        deviations.append(max(float(share @ (value - mean) ** 2) ** 0.5, 1e-3))
    return tuple(means), tuple(deviations)


def _count_values(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each value occurs in each channel of uint8 [N,H,W,C]: int64 [C,256]."""
    channels = images.shape[3]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), _COUNTED_AT_ONCE):  # bincount needs eight bytes for each value
        for channel in range(channels):
            values = images[start : start + _COUNTED_AT_ONCE, ..., channel].ravel()
            counts[channel] += np.bincount(values, minlength=256)
    return counts


def balanced_subset(labels: Labels, count: int) -> NDArray[np.int64]:
    """`count` rows, spread over the classes as evenly as possible; sorted, always the same ones."""
    order = permutation(0, 0, len(labels), Stream.SUBSET)
    by_class = order[np.argsort(labels[order], kind="stable")]
    class_start = np.searchsorted(labels[by_class], labels[by_class])
    rank_in_class = np.arange(len(labels)) - class_start
    return np.sort(by_class[np.argsort(rank_in_class, kind="stable")[:count]])


def fold_of_images(labels: Labels, folds: int) -> NDArray[np.int64]:
    """The fold of each image, int64 [N] in 0..folds-1: each class is split at random as evenly as possible.

    The folds are always the same for the same labels [N], and differ in size by at most one image.
    """
    order = permutation(0, 0, len(labels), Stream.SUBSET)
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold


def split_off_validation(
    labels: Labels, names: Sequence[bytes], classes: Sequence[str], fraction: float | None, source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(training rows, validation rows), both sorted: `fraction` of each class is for validation (`stratified_rows`).

    Images are selected by a hash of their names, so that adding images moves hardly any to the other split. With
    fraction None, both are all rows. Raises InputError, which names `source`, as `stratified_rows`.
    """
    rows = np.arange(len(labels))
    if fraction is None:
        return rows, rows
    hashes = np.array([int.from_bytes(hashlib.sha256(name).digest()[:8]) for name in names], np.uint64)
    val_rows = stratified_rows(labels, hashes, fraction, classes, source)
    return np.setdiff1d(rows, val_rows), val_rows


def describe_hold_out(fraction: float | None) -> str:
    """`Dataset.val_source` of images from `split_off_validation`."""
    if fraction is None:
        return "all its images"
    return f"{100 * fraction:g} % of each class held out of training (data.val_fraction)"


def stratified_rows(
    labels: Labels, order: NDArray[Any], fraction: float, classes: Sequence[str], source: str
) -> NDArray[np.int64]:
    """Rows of `fraction` of each class, at least one and not all: those with the lowest `order` [N]; sorted.

    Of a class with a single image there is none. Raises InputError, which names `source`, for a class without images,
    and if no class has two.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 1:
        raise InputError(f"{source}: class {classes[int(counts.argmin())]} has no images")
    if counts.max() < 2:
        raise InputError(f"{source}: every class has only one image, so none can be held out for validation")
    by_class = np.lexsort((order, labels))
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    selected = np.minimum(np.maximum(np.round(fraction * counts).astype(np.int64), 1), counts - 1)
    return np.sort(by_class[rank_in_class < selected[labels[by_class]]])
