"""Images in: what every source of images looks like to the rest of the package."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.data.folder_index import FilePaths
from kdaug.philox import Stream, permutation

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ArrayImages:
    """Images held in memory: `images` uint8 [N,H,W,C] with C 1 or 3, `labels` int64 [N]."""

    images: NDArray[np.uint8]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[np.int64]) -> ArrayImages:
        """The images at `rows`."""
        return ArrayImages(self.images[rows], self.labels[rows])


@dataclass(frozen=True)
class FolderImages:
    """Image files, decoded when they are needed: `paths` [N], `labels` int64 [N]."""

    paths: Sequence[Path]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: NDArray[np.int64]) -> FolderImages:
        """The images at `rows`."""
        paths = self.paths
        taken = paths.take(rows) if isinstance(paths, FilePaths) else tuple(paths[row] for row in rows)
        return FolderImages(taken, self.labels[rows])


Images = ArrayImages | FolderImages


@dataclass(frozen=True)
class Dataset:
    """Training and validation images of the same classes.

    size: (height, width) in pixels that networks get. mean, std: per channel in 0..1, of the training images (for
    folders ImageNet's). Their length is the number of channels. content: a digest that changes when images are added,
    removed, or moved to another class or split: of the pixels and labels held in memory, of a folder's file names; of
    all training images, also when only some are used.
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


def array_content(train: ArrayImages, val: ArrayImages) -> str:
    """`Dataset.content` of images held in memory."""
    return digest(train.images, train.labels, val.images, val.labels)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
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
