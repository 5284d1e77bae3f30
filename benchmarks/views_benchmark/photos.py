"""The images: CIFAR-100 and imagenette from a data folder, otherwise the bundled Fashion-MNIST."""

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
"""Images of each size. The batches are large, so that starting a second thread costs little in comparison."""


@dataclass(frozen=True)
class Photos:
    """`images` uint8 [N,size,size,3] and their source."""

    images: NDArray[np.uint8]
    source: str

    @property
    def size(self) -> int:
        return int(self.images.shape[1])


def load_photos(size: int, folder: Path | None) -> Photos:
    """COUNTS[size] images: CIFAR-100 (32 pixels) or imagenette-small (224) if `folder` contains it."""
    count = COUNTS[size]
    cifar = read_cifar("cifar-100", folder) if folder and size == 32 else None
    if cifar is not None:
        return Photos(np.ascontiguousarray(cifar[0].images[:count]), f"CIFAR-100, its first {count} training images")
    files = sorted(folder.glob("imagenette-small/train/*/*.JPEG")) if folder and size == 224 else []
    if len(files) >= count:
        chosen = [files[i * len(files) // count] for i in range(count)]
        return Photos(np.stack([_read(file, size) for file in chosen]), f"imagenette, {count} photos of all classes")
    return Photos(
        np.stack([_enlarge(number, size) for number in range(count)]),
        "the bundled Fashion-MNIST, enlarged (bicubic); red, green and blue are three different images",
    )


def _read(file: Path, size: int) -> NDArray[np.uint8]:
    with Image.open(file) as photo:
        return np.asarray(photo.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def _enlarge(number: int, size: int) -> NDArray[np.uint8]:
    gray = _bundled_images()[3 * number : 3 * number + 3, :, :, 0]
    planes = [Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC) for plane in gray]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


@cache
def _bundled_images() -> NDArray[np.uint8]:
    train = load_bundled().train
    assert isinstance(train, ArrayImages)
    return train.images
