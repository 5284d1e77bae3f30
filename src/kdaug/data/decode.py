"""Decodes an image file to a uint8 array, with Pillow."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from kdaug.data.crops import Box, ImageCrop
from kdaug.data.images import ImageFile
from kdaug.errors import one_line

_MIN_OVERSAMPLING = 2
"""A JPEG is decoded at reduced size only if each output pixel is still made from so many decoded ones per direction."""


class UnreadableImage(Exception):
    """An image file cannot be decoded. The message is the reason, without the path."""


def decode(encoded: ImageFile, crop: ImageCrop, epoch: int, index: int) -> NDArray[np.uint8]:
    """Decodes an image and resizes its crop (bicubic): RGB, uint8 [size,size,3] with size = crop.size.

    epoch, index: passed on to `crop.box`; index is the image's sample ID. The EXIF orientation is applied first. All
    modes that Pillow reads become RGB: gray is repeated, 16-bit and 32-bit integers keep the high byte of 16, floats
    are clipped to 0..255, transparency is dropped. A JPEG whose crop is at least four times `size` is decoded at 1/2,
    1/4 or 1/8 of its sides, as libjpeg can, so that the crop still has twice `size`; this changes pixels of photographs
    by about 1 of 255. Raises UnreadableImage for a file that is damaged, not an image, or beyond Pillow's size limit.
    """
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded.read_bytes())) as file:
            if file.format == "TIFF":
                file.load()  # Pillow applies the orientation of a TIFF when it loads it; its size changes then
            orientation = file.getexif().get(ExifTags.Base.Orientation, 1)
            width, height = (file.height, file.width) if orientation in (5, 6, 7, 8) else file.size
            box = crop.box(epoch, index, width, height)
            _reduce_jpeg(file, box, crop.size)
            file.load()
            image = as_rgb(file if orientation == 1 else ImageOps.exif_transpose(file))
    except Exception as error:  # Pillow's decoders raise exceptions of any type for damaged files
        raise UnreadableImage(_reason(error)) from None
    reduction = round(width / image.width)
    # The last row and column of a reduced JPEG may be made from fewer source pixels than the others. If the orientation
    # makes them the first, the box moves by the part that is missing.
    x = image.width - width / reduction if orientation in (2, 3, 6, 7) else 0.0
    y = image.height - height / reduction if orientation in (3, 4, 7, 8) else 0.0
    left, top, right, bottom = (edge / reduction for edge in box)
    reduced_box = (left + x, top + y, right + x, bottom + y)
    return np.asarray(image.resize((crop.size, crop.size), Image.Resampling.BICUBIC, box=reduced_box))


def _reason(error: Exception) -> str:
    """The reason in one line, without the name of the in-memory stream that Pillow puts into it."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(error)


def _reduce_jpeg(file: Image.Image, box: Box, size: int) -> None:
    """Makes Pillow decode a JPEG at a fraction of its sides, if `box` then still has twice `size` pixels a side."""
    left, top, right, bottom = box
    scale = _MIN_OVERSAMPLING * size / min(right - left, bottom - top)
    if file.format == "JPEG" and scale <= 1 / 2:
        file.draft(None, (math.ceil(file.width * scale), math.ceil(file.height * scale)))


def as_rgb(image: Image.Image) -> Image.Image:
    """`image` in mode RGB. Integer gray is read as 16-bit and keeps the high byte; float gray is clipped to 0..255."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")
