"""Decodes an image file to a uint8 array, with Pillow and, where its pixels are the same, with simplejpeg."""

from __future__ import annotations

import io
import logging
import math
import os
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from kdaug.data.crops import Box, ImageCrop
from kdaug.data.formats import readable_extensions
from kdaug.data.images import ImageFile
from kdaug.data.jpeg import decode_jpeg
from kdaug.data.resize import resize_bicubic
from kdaug.errors import one_line

_logger = logging.getLogger(__name__)
_MIN_OVERSAMPLING = 2
"""A JPEG is decoded at reduced size only if each output pixel is still made from so many decoded ones per direction."""
_UPRIGHT: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
"""By EXIF orientation, what makes an image [H,W,3] upright."""
RangeNotes = dict[tuple[str, str], str]
"""Messages about value ranges, by file ending and Pillow mode."""
_notes: RangeNotes = {}
_noted: set[tuple[str, str]] = set()
_logged: set[tuple[str, str]] = set()


class UnreadableImage(Exception):
    """An image file cannot be decoded. The message is the reason, without the path."""


def decode(encoded: ImageFile, crop: ImageCrop, epoch: int, index: int) -> NDArray[np.uint8]:
    """Decodes an image and resizes its crop (bicubic): RGB, uint8 [size,size,3] with size = crop.size.

    epoch, index: passed on to `crop.box`; index is the image's sample ID. The EXIF orientation is applied first; EXIF
    data that cannot be read is ignored. All modes that Pillow reads become RGB, see `as_rgb`; transparency is dropped.
    A JPEG whose crop is at least four times `size` is decoded at 1/2, 1/4 or 1/8 of its sides, as libjpeg can, so that
    the crop still has twice `size`; this changes pixels of photographs by about 1 of 255. HEIC files need pillow-heif.
    Raises UnreadableImage for a file that is damaged, not an image, or beyond Pillow's size limit.
    """
    try:
        content = encoded.read_bytes()
        if content[4:8] == b"ftyp":
            readable_extensions()  # registers the plugins for HEIC and AVIF
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as file:
            if file.format != "JPEG":
                file.load()  # a TIFF gets its upright size, and a PNG may have its EXIF data after the pixels
            orientation = orientation_of(file)
            width, height = (file.height, file.width) if orientation in (5, 6, 7, 8) else file.size
            box = crop.box(epoch, index, width, height)
            _reduce_jpeg(file, box, crop.size)
            pixels = decode_jpeg(file, content)
            if pixels is None:
                file.load()
                _note_range(encoded, file)
                pixels = np.asarray(as_rgb(file))
    except Exception as error:  # Pillow's decoders raise exceptions of any type for damaged files
        raise UnreadableImage(_reason(error)) from None
    pixels = _UPRIGHT[orientation](pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1))
    reduced_height, reduced_width, _ = pixels.shape
    reduction = round(width / reduced_width)
    # The last row and column of a reduced JPEG may be made from fewer source pixels than the others. If the orientation
    # makes them the first, the box moves by the part that is missing.
    x = reduced_width - width / reduction if orientation in (2, 3, 6, 7) else 0.0
    y = reduced_height - height / reduction if orientation in (3, 4, 7, 8) else 0.0
    left, top, right, bottom = (edge / reduction for edge in box)
    reduced_box = (left + x, top + y, right + x, bottom + y)
    return resize_bicubic(pixels, reduced_box, crop.size)


def resize_image(image: Image.Image, crop: ImageCrop) -> NDArray[np.uint8]:
    """As `decode`, of an image that Pillow has opened or made. The whole image is decoded, also a large JPEG.

    Raises UnreadableImage if it is damaged.
    """
    try:
        image.load()
        orientation, pixels = orientation_of(image), np.asarray(as_rgb(image))
    except Exception as error:
        raise UnreadableImage(_reason(error)) from None
    return resize_pixels(_UPRIGHT[orientation](pixels), crop)


def resize_pixels(pixels: NDArray[np.uint8], crop: ImageCrop) -> NDArray[np.uint8]:
    """As `decode`, of an upright image uint8 [H,W,3]."""
    height, width, _ = pixels.shape
    return resize_bicubic(pixels, crop.box(0, 0, width, height), crop.size)


def orientation_of(file: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 if it has none, or none that can be read."""
    try:
        value = file.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow raises exceptions of any type for damaged EXIF data
        return 1
    return next((orientation for orientation in _UPRIGHT if value == orientation), 1)


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
    """`image` in mode RGB.

    Integer gray is read as 16-bit and keeps the high byte, unless no value is above 255: then values are kept. Float
    gray is clipped to 0..255 and truncated, unless all values are within 0..1: then they are multiplied by 255 and
    rounded. NaN becomes 0.
    """
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=np.inf, neginf=-np.inf)
        scaled = np.rint(values * 255) if _narrow_range(image) else values
        image = Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8))
    elif image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64) >> (0 if _narrow_range(image) else 8)
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _narrow_range(image: Image.Image) -> str:
    """0..1 if that holds all values of a float image, 0..255 if that holds those of an integer one; else empty.

    Images whose largest value is 0 or less have the usual range. NaN is ignored.
    """
    if image.mode == "F":
        values = np.asarray(image)
        return "0..1" if 0 < np.fmax.reduce(values, None) <= 1 and np.fmin.reduce(values, None) >= 0 else ""
    return "0..255" if image.mode.startswith("I") and 0 < np.asarray(image).max() <= 255 else ""


def _note_range(encoded: ImageFile, image: Image.Image) -> None:
    """Notes, once per file ending and mode, that `image` does not use the range of its mode."""
    key = os.path.splitext(str(encoded))[1].lower() or str(image.format), image.mode
    if key not in _noted and (values := _narrow_range(image)):
        _noted.add(key)
        usual = "0..255" if image.mode == "F" else "0..65535"
        _notes[key] = (
            f"{key[0]} images of mode {key[1]} whose values are all in {values} are read as {values}, not {usual}"
        )


def take_range_notes() -> RangeNotes:
    """The notes since the last call in this process: which images had values in another range than usual."""
    taken = dict(_notes)
    _notes.clear()
    return taken


def log_range_notes(notes: RangeNotes) -> None:
    """Logs those of `notes`, from any process, whose ending and mode this process has not logged yet."""
    for key, message in notes.items():
        if key not in _logged:
            _logged.add(key)
            _logger.warning("%s", message)
