"""One image file to one uint8 array, with Pillow."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kdaug.data.frames import Frame


class Unreadable(Exception):
    """This file cannot be decoded; the message says why, without the path."""


def decode(path: Path, frame: Frame, epoch: int, index: int) -> NDArray[np.uint8]:
    """The part of the image at `path` that `frame` chooses, bicubic at its size: uint8 [size,size,3].

    The EXIF orientation is applied first. Every mode Pillow reads becomes RGB: grey is repeated, 16-bit and 32-bit
    integers keep the high byte of 16, floats are cut to 0..255, transparency is dropped. Raises Unreadable for a
    damaged, foreign or absurdly large file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as file:
                image = as_rgb(ImageOps.exif_transpose(file))
    except Exception as error:  # Pillow's decoders fail on damaged files in every way there is
        raise Unreadable(" ".join(str(error).split()).replace(f" {str(path)!r}", "") or type(error).__name__) from None
    box = frame.box(epoch, index, image.width, image.height)
    return np.asarray(image.resize((frame.size, frame.size), Image.Resampling.BICUBIC, box=box))


def as_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB. Integer grey is taken for 16 bits and keeps the high byte; float grey is cut to 0..255."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
