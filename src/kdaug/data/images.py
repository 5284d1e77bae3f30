"""Images in: what every source of images looks like to the rest of the package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.rng.philox import Stream, permutation

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory: `images` uint8 [N,H,W,C] with C 1 or 3, `labels` int64 [N]."""

    images: NDArray[np.uint8]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def view_keys(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """By what the views of the images at `rows` are drawn: their places."""
        return rows

    def name_of(self, row: int) -> str:
        """What to call the image at `row` in a message."""
        return f"#{row}"

    def subset(self, rows: NDArray[np.int64]) -> ArrayImages:
        """The images at `rows`."""
        return ArrayImages(self.images[rows], self.labels[rows])


class ImageFile(Protocol):
    """An encoded image: a Path, or a part of a larger file. Its str names it in messages."""

    def read_bytes(self) -> bytes: ...


class ImageFiles(Protocol):
    """Encoded images by their places, each made when it is asked for: a million of them take little room."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> ImageFile: ...
    def take(self, rows: NDArray[np.int64]) -> Self:
        """Those at `rows`."""
        ...


@dataclass(frozen=True)
class EncodedImages:
    """Images that are decoded when they are needed: `files` [N], `labels` int64 [N].

    keys: what the views of each image are drawn by, int64 [N], not negative; None: its place.
    """

    files: ImageFiles
    labels: Labels
    keys: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def view_keys(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """By what the views of the images at `rows` are drawn."""
        return rows if self.keys is None else self.keys[rows]

    def name_of(self, row: int) -> str:
        """What to call the image at `row` in a message."""
        return str(self.files[row])

    def subset(self, rows: NDArray[np.int64]) -> EncodedImages:
        """The images at `rows`."""
        return EncodedImages(self.files.take(rows), self.labels[rows], None if self.keys is None else self.keys[rows])


Images = ArrayImages | EncodedImages


@dataclass(frozen=True)
class Dataset:
    """Training and validation images of the same classes.

    size: (height, width) in pixels that networks get. mean, std: per channel in 0..1, of the training images (for
    encoded ones ImageNet's). Their length is the number of channels. content: a digest that changes when images are
    added, removed, or moved to another class or split: of the pixels and labels held in memory, else of the files'
    names; of all training images, also when only some are used.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    val: Images
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content: str

    @property
    def channels(self) -> int:
        return len(self.mean)

    @property
    def fill(self) -> tuple[int, int, int]:
        """The mean as a colour 0..255; a grey mean stands three times."""
        color = [round(255 * value) for value in self.mean]
        return (color[0], color[0], color[0]) if len(color) == 1 else (color[0], color[1], color[2])


def digest(*parts: bytes | NDArray[Any]) -> str:
    """Sixteen hexadecimal digits that differ when the bytes of the `parts`, one after the other, do."""
    sha256 = hashlib.sha256()
    for part in parts:
        sha256.update(part if isinstance(part, bytes) else part.ravel().data)
    return sha256.hexdigest()[:16]


def content_digest(train: ArrayImages, val: ArrayImages) -> str:
    """`Dataset.content` of images held in memory."""
    return digest(train.images, train.labels, val.images, val.labels)


def channel_mean_std(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation per channel of uint8 [N,H,W,C], in 0..1, exact up to float64."""
    value = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[3]):
        share = np.bincount(images[..., channel].ravel(), minlength=256) / images[..., channel].size
        mean = float(share @ value)
        means.append(mean)
        deviations.append(max(float(share @ (value - mean) ** 2) ** 0.5, 1e-3))
    return tuple(means), tuple(deviations)


def balanced_subset(labels: Labels, count: int) -> NDArray[np.int64]:
    """`count` positions, spread over the classes as evenly as they allow; sorted, and the same for every seed."""
    drawn = permutation(0, 0, len(labels), Stream.SUBSET)
    by_class = drawn[np.argsort(labels[drawn], kind="stable")]
    class_start = np.searchsorted(labels[by_class], labels[by_class])
    turn = np.arange(len(labels)) - class_start
    return np.sort(by_class[np.argsort(turn, kind="stable")[:count]])


def hold_out(
    images: EncodedImages, names: Sequence[bytes], classes: Sequence[str], fraction: float, place: str
) -> tuple[EncodedImages, EncodedImages]:
    """(the rest, `fraction` of each class, at least one image).

    An image's place in the draw depends on its own name alone, so that adding some moves hardly any to the other side.
    Raises InputError for a class of less than two images, naming the `place` where they lie.
    """
    drawn = np.array([int.from_bytes(hashlib.sha256(name).digest()[:8]) for name in names], np.uint64)
    val = stratified_rows(images.labels, drawn, fraction, classes, place)
    return images.subset(np.setdiff1d(np.arange(len(images)), val)), images.subset(val)


def stratified_rows(
    labels: Labels, drawn: NDArray[Any], fraction: float, classes: Sequence[str], place: str
) -> NDArray[np.int64]:
    """Positions of `fraction` of each class, but at least one and not all: those whose `drawn` [N] is lowest; sorted.

    Raises InputError for a class of less than two images, naming the `place` where they lie.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() < 2:
        least = int(counts.argmin())
        raise InputError(f"{place}: class {classes[least]} has {counts[least]} image(s); to hold some out it needs two")
    by_class = np.lexsort((drawn, labels))
    turn = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.clip(np.round(fraction * counts).astype(np.int64), 1, counts - 1)
    return np.sort(by_class[turn < wanted[labels[by_class]]])
