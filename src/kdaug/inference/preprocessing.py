"""From an image to the input of a network, as in evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.data.crops import CenterCrop
from kdaug.data.decode import decode, resize_image, resize_pixels
from kdaug.errors import InputError
from kdaug.networks import InputFormat, NetworkInfo

ImageInput = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]
"""An image: the path of a file, a PIL image, or an array uint8 [H,W,C] with C 1 (gray) or 3 (RGB)."""
_HINT = "pass paths, PIL images, or arrays uint8 [H,W,C] with C 1 (gray) or 3 (RGB)"


@dataclass(frozen=True)
class Preprocessing:
    """What evaluation does with an image before the network gets it.

    crop: the central square, which is resized to crop.size pixels (bicubic). input_format: the normalization; it also
    resizes if the network is evaluated at another size than its images have (run.evaluate_size of CIFAR, say).
    """

    crop: CenterCrop
    input_format: InputFormat

    @property
    def channels(self) -> int:
        return len(self.input_format.mean)

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of what the network gets."""
        return self.input_format.size or (self.crop.size, self.crop.size)

    def pixels(self, image: ImageInput) -> NDArray[np.uint8]:
        """The cropped and resized image, not yet normalized: uint8 [size,size,C] with size = crop.size.

        Files and PIL images are made upright by their EXIF orientation and read as in training, see
        `kdaug.data.decode`. A gray network gets the luminance of a color image. Raises UnreadableImage if a file or PIL
        image cannot be decoded, InputError for anything else that is not an ImageInput.
        """
        return _with_channels(_read(image, self.crop), self.channels)


def preprocessing_of(info: NetworkInfo) -> Preprocessing:
    """The preprocessing of the run that wrote `info`. Raises InputError if its images are not square."""
    height, width = info.size
    if height != width:
        raise InputError(f"the network {info.network} takes images of {height} x {width} pixels, which are not square")
    side = info.evaluate_size or height
    crop = CenterCrop(side) if info.photos else CenterCrop(height, fraction=1.0)
    return Preprocessing(crop, InputFormat(info.mean, info.std, (side, side)))


def as_images(images: ImageInput | Iterable[ImageInput]) -> Iterable[ImageInput]:
    """`images` as an iterable also if it is a single one. An array [N,H,W,C] is N images."""
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
        return [images]  # bytes are refused when they are read, as one image and not as their numbers
    if isinstance(images, np.ndarray) and images.ndim != 4:
        return [images]
    if not isinstance(images, Iterable):
        raise InputError(f"an image is of type {type(images).__name__}", _HINT)
    return images


def _read(image: ImageInput, crop: CenterCrop) -> NDArray[np.uint8]:
    """RGB, uint8 [size,size,3]."""
    if isinstance(image, str | os.PathLike):
        return decode(Path(image), crop, epoch=0, index=0)
    if isinstance(image, Image.Image):
        return resize_image(image, crop)
    if not isinstance(image, np.ndarray):
        raise InputError(f"an image is of type {type(image).__name__}", _HINT)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise InputError(f"an image is an array {image.dtype} {list(image.shape)}", _HINT)
    return resize_pixels(image if image.shape[2] == 3 else image.repeat(3, axis=2), crop)


def _with_channels(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """An RGB image [H,W,3] with 3 channels or with 1. Gray values do not change: they are their luminance."""
    return pixels if channels == 3 else np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
