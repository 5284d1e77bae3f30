"""Decodes JPEG files with simplejpeg where its pixels are known to be those of Pillow.

Both use libjpeg-turbo, but each contains its own build, of a version that differs. So each kind of JPEG (sampling of
the colors, baseline or progressive) is checked once per process: files of this kind are decoded by both libraries at
all scales. simplejpeg is used for a kind only if all pixels are equal, and only for files that it decodes without any
warning of libjpeg. Pillow decodes everything else.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from functools import cache

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

_BASELINE, _PROGRESSIVE = 0xC0, 0xC2
_SAMPLINGS = {
    ((1, 1),): "Gray",
    ((1, 1), (1, 1), (1, 1)): "444",
    ((2, 1), (1, 1), (1, 1)): "422",
    ((2, 2), (1, 1), (1, 1)): "420",
    ((1, 2), (1, 1), (1, 1)): "440",
    ((4, 1), (1, 1), (1, 1)): "411",
}
"""simplejpeg's names of the samplings, by the horizontal and vertical factors of the components."""
_PILLOW_SAMPLINGS = {"444": "4:4:4", "422": "4:2:2", "420": "4:2:0"}
_MIN_SIDE = 8
"""From this decoded size on, the size of a reduced image determines its scale."""


def decode_jpeg(file: Image.Image, content: bytes) -> NDArray[np.uint8] | None:
    """The pixels that `file.load()` would decode, [H,W,3] or gray [H,W]; None if only Pillow can decode them.

    file: a JPEG opened from `content` and not yet loaded; its size is the reduced one after `draft`.
    """
    kind = _kind_of(file, content)
    if kind is None or not _equals_pillow(*kind):
        return None
    return _decode(content, file.mode, file.size)


def _kind_of(file: Image.Image, content: bytes) -> tuple[str, bool] | None:
    """(sampling, whether it is progressive) of a gray or YCbCr file; None for kinds that cannot be checked."""
    if not isinstance(file, JpegImageFile) or file.format != "JPEG" or max(file.size) < _MIN_SIDE:
        return None
    sampling = _SAMPLINGS.get(tuple((horizontal, vertical) for _, horizontal, vertical, _ in file.layer))
    marker = _frame_marker(content)
    if sampling is None or marker not in (_BASELINE, _PROGRESSIVE):
        return None
    # Without these component numbers, or with another Adobe transform, libjpeg guesses the color space.
    is_ycc = [layer[0] for layer in file.layer] == [1, 2, 3] and file.info.get("adobe_transform", 1) == 1
    return (sampling, marker == _PROGRESSIVE) if sampling == "Gray" or is_ycc else None


def _frame_marker(content: bytes) -> int | None:
    """The second byte of the first start-of-frame marker; None if the segments before it are not well-formed."""
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return marker
        if marker < 0xC0 or 0xD0 <= marker <= 0xDA or marker == 0xFF:
            return None
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
    return None


def _decode(content: bytes, mode: str, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The pixels in `mode` RGB or L, reduced to `size` (width, height); None if libjpeg warns or the size differs."""
    width, height = size
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content, "RGB" if mode == "RGB" else "GRAY", min_height=height, min_width=width, strict=True
        )
    except ValueError:
        return None
    if pixels.shape[:2] != (height, width):
        return None
    return pixels if mode == "RGB" else pixels[..., 0]


@cache
def _equals_pillow(sampling: str, progressive: bool) -> bool:
    """Whether both libraries decode generated files of a kind to the same pixels, in full and at each reduced size."""
    try:
        samples = list(_samples(sampling, progressive))
        return bool(samples) and all(
            _is_equal(content, is_whole, scale) for content, is_whole in samples for scale in (1, 2, 4, 8)
        )
    except (OSError, ValueError):  # a library cannot write or read a sample
        return False


def _is_equal(content: bytes, is_whole: bool, scale: int) -> bool:
    """Whether both libraries decode a file to the same pixels. simplejpeg may refuse a file that is not whole."""
    with Image.open(io.BytesIO(content)) as file:
        if scale > 1:
            file.draft(None, (file.width // scale, file.height // scale))
        ours = _decode(content, file.mode, file.size)
        return not is_whole if ours is None else ours.tobytes() == file.tobytes()


def _samples(sampling: str, progressive: bool) -> Iterator[tuple[bytes, bool]]:
    """JPEG files of a kind, of noise, and whether they are whole; none if neither library can write the kind.

    Progressive files also come without their last scans, because libjpeg then smooths the image.
    """
    if progressive and sampling not in ("Gray", *_PILLOW_SAMPLINGS):
        return
    for width, height in ((136, 104), (99, 67), (65, 130)):
        noise = np.frombuffer(hashlib.shake_256(b"%d" % width).digest(width * height * 3), np.uint8)
        fine = noise.reshape(height, width, 3)
        coarse = Image.fromarray(fine[:9, :9]).resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(Image.blend(coarse, Image.fromarray(fine), 0.25))
        if sampling == "Gray":
            pixels = np.ascontiguousarray(pixels[..., :1])
        if not progressive:
            yield simplejpeg.encode_jpeg(pixels, 90, "GRAY" if sampling == "Gray" else "RGB", sampling), True
            continue
        content = _write_progressive(pixels, sampling)
        yield content, True
        scan = content.find(b"\xff\xda")
        while width == 99 and (scan := content.find(b"\xff\xda", scan + 2)) > 0:
            yield content[:scan] + b"\xff\xd9", False


def _write_progressive(pixels: NDArray[np.uint8], sampling: str) -> bytes:
    written = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if sampling == "Gray" else pixels)
    options = {} if sampling == "Gray" else {"subsampling": _PILLOW_SAMPLINGS[sampling]}
    image.save(written, "JPEG", quality=90, progressive=True, **options)
    return written.getvalue()
