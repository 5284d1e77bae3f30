"""The names of the datasets, and what is known about those in memory before they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DatasetName = Literal["bundled", "omniglot", "cifar-10", "cifar-100", "fashion-mnist", "folder", "shards", "hub"]

DEFAULT_IMAGE_SIZE = 224
"""Side in pixels that encoded images are resized to if data.image_size is None."""


@dataclass(frozen=True)
class ArrayDataset:
    """A dataset whose images are kept in memory as an array.

    side: height and width of the images in pixels. validates_on_test: whether its validation images are the test split
    that results are published on.
    """

    side: int
    channels: int
    validates_on_test: bool


ARRAY_DATASETS: dict[DatasetName, ArrayDataset] = {
    "bundled": ArrayDataset(28, 1, validates_on_test=True),
    "omniglot": ArrayDataset(28, 1, validates_on_test=True),
    "cifar-10": ArrayDataset(32, 3, validates_on_test=True),
    "cifar-100": ArrayDataset(32, 3, validates_on_test=True),
    "fashion-mnist": ArrayDataset(28, 1, validates_on_test=True),
}
"""The datasets in memory. The images of all others are encoded files, which are decoded during training."""
