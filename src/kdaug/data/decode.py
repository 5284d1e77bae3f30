"""One image file to one uint8 array, with Pillow."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from kdaug.data.crops import Box, ImageCrop
from kdaug.data.images import ImageFile

_KEPT = 2
"""How many decoded pixels each pixel of the result is made from at least, in either direction."""


class UnreadableImage(Exception):
    """This file cannot be decoded; the message says why, without the path."""


def decode(encoded: ImageFile, crop: ImageCrop, epoch: int, index: int) -> NDArray[np.uint8]:
    """The part of an image that `crop` chooses in `epoch` for view key `index`, bicubic at its size:
    uint8 [size,size,3].

    The EXIF orientation is applied first. Every mode Pillow reads becomes RGB: grey is repeated, 16-bit and 32-bit
    integers keep the high byte of 16, floats are cut to 0..255, transparency is dropped. A JPEG whose part is at least
    four times `size` is decoded at a half, a quarter or an eighth of its sides, as libjpeg can, so that the part is
    still twice `size`; that moves pixels of photographs by about one of 255. Raises Unreadable for a damaged, foreign
    or absurdly large file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(encoded.read_bytes())) as file:
                if file.format == "TIFF":
                    file.load()  # Pillow turns these upright itself, and only then is their size to be trusted
                orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
                on_its_side = orientation in (5, 6, 7, 8)
                width, height = (file.height, file.width) if on_its_side else (file.width, file.height)
                box = crop.box(epoch, index, width, height)
                _draft(file, box, crop.size)
                file.load()
                image = as_rgb(file if orientation == 1 else ImageOps.exif_transpose(file))
    except Exception as error:  # Pillow's decoders fail on damaged files in every way there is
        raise UnreadableImage(_reason(error)) from None
    shrunk = round(width / image.width)
    # The last pixel of a row shrunk may stand for less than a whole one; turned round, it is the first.
    x = image.width - width / shrunk if orientation in (2, 3, 6, 7) else 0.0
    y = image.height - height / shrunk if orientation in (3, 4, 7, 8) else 0.0
    left, top, right, bottom = (side / shrunk for side in box)
    part = (left + x, top + y, right + x, bottom + y)
    return np.asarray(image.resize((crop.size, crop.size), Image.Resampling.BICUBIC, box=part))


def _reason(error: Exception) -> str:
    """What is wrong, in one line that names no file: the caller has a better name for it than the stream."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _draft(file: Image.Image, box: Box, size: int) -> None:
    """Has a JPEG decoded at a fraction of its sides, if `box` keeps twice `size` pixels then."""
    left, top, right, bottom = box
    wanted = _KEPT * size / min(right - left, bottom - top)
    if file.format == "JPEG" and wanted <= 1 / 2:
        file.draft(None, (math.ceil(file.width * wanted), math.ceil(file.height * wanted)))


def as_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB. Integer grey is taken for 16 bits and keeps the high byte; float grey is cut to 0..255."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
