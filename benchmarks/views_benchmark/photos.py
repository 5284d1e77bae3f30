"""The images: real photos if a folder with them is named, otherwise those that come with the package."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.data.datasets import load_bundled
from kdaug.data.images import ArrayImages
from kdaug.data.named import read_cifar

COUNTS = {32: 1024, 224: 128}
"""Images of each size: large batches, so that what two threads gain is not lost in waking the second."""


@dataclass(frozen=True)
class Photos:
    """`images` uint8 [N,size,size,3] and where they are from."""

    images: NDArray[np.uint8]
    source: str

    @property
    def size(self) -> int:
        return int(self.images.shape[1])


def photos(size: int, folder: Path | None) -> Photos:
    """The batch of `size`: from CIFAR-100 (32 pixels) or imagenette-small (224) in `folder` where they are there."""
    count = COUNTS[size]
    cifar = read_cifar("cifar-100", folder) if folder and size == 32 else None
    if cifar is not None:
        return Photos(np.ascontiguousarray(cifar[0].images[:count]), f"CIFAR-100, its first {count} training images")
    files = sorted(folder.glob("imagenette-small/train/*/*.JPEG")) if folder and size == 224 else []
    if len(files) >= count:
        chosen = [files[i * len(files) // count] for i in range(count)]
        return Photos(np.stack([_opened(file, size) for file in chosen]), f"imagenette, {count} photos of all classes")
    return Photos(
        np.stack([_enlarged(number, size) for number in range(count)]),
        "the bundled Fashion-MNIST, enlarged (bicubic); red, green and blue are three different images",
    )


def _opened(file: Path, size: int) -> NDArray[np.uint8]:
    with Image.open(file) as photo:
        return np.asarray(photo.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def _enlarged(number: int, size: int) -> NDArray[np.uint8]:
    grey = _bundled()[3 * number : 3 * number + 3, :, :, 0]
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC) for plane in grey]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


@cache
def _bundled() -> NDArray[np.uint8]:
    train = load_bundled().train
    assert isinstance(train, ArrayImages)
    return train.images
