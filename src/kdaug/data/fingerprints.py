"""Fingerprints of image files, by which copies are found: of the bytes, and of what the image shows."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kdaug.data.crops import WholeImage
from kdaug.data.decode import UnreadableImage, decode, log_range_notes, take_range_notes
from kdaug.data.formats import readable_extensions
from kdaug.data.images import EncodedImages
from kdaug.data.resize import tall_images_rule
from kdaug.device import available_cores

_DECODED_SIDE = 72
"""Pixels of each side that an image is decoded to: a multiple of the 9 columns and 8 rows of the difference hash."""
_THUMBNAIL_SIDE = 12
_IMAGES_AT_ONCE = 256
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of N images.

    digests: BLAKE2b of each file's bytes, bytes [N]. hashes: the difference hash of each image, uint64 [N]. thumbnails:
    uint8 [N,432], RGB of 12 x 12 pixels. unreadable: why an image cannot be read, by its row; its fingerprints are
    zeros.
    """

    digests: NDArray[np.void]
    hashes: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]
    unreadable: dict[int, str]

    def __len__(self) -> int:
        return len(self.hashes)


def fingerprint_images(images: EncodedImages, before_batch: Callable[[int], None] = lambda done: None) -> Fingerprints:
    """The fingerprints of all `images`, which threads read: decoders and kernels work without the GIL.

    before_batch: is called with the number of images that are done; its exceptions end the work. Memory: 456 bytes per
    image.
    """
    tall_images_rule()  # compiles the kernel, with a message, before threads need it
    readable_extensions()  # registers Pillow's plugins
    count = len(images)
    digests, hashes = np.zeros(count, f"V{_DIGEST_BYTES}"), np.zeros(count, np.uint64)
    thumbnails = np.zeros((count, 3 * _THUMBNAIL_SIDE**2), np.uint8)
    unreadable = dict[int, str]()
    for row, read in enumerate(_read_all(images, before_batch)):
        if isinstance(read, str):
            unreadable[row] = read
        else:
            digests[row], hashes[row], thumbnails[row] = read
    return Fingerprints(digests, hashes, thumbnails, unreadable)


def concat(first: Fingerprints, second: Fingerprints) -> Fingerprints:
    """The fingerprints of both; the rows of the second come after those of the first."""
    unreadable = {len(first) + row: reason for row, reason in second.unreadable.items()}
    return Fingerprints(
        np.concatenate([first.digests, second.digests]),
        np.concatenate([first.hashes, second.hashes]),
        np.concatenate([first.thumbnails, second.thumbnails]),
        first.unreadable | unreadable,
    )


_Fingerprint = tuple[bytes, int, NDArray[np.uint8]]


def _read_all(images: EncodedImages, before_batch: Callable[[int], None]) -> Iterator[_Fingerprint | str]:
    """The fingerprints of each of `images`, or why it cannot be read."""
    with ThreadPoolExecutor(available_cores(), "kdaug-fingerprint") as pool:
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            before_batch(start)
            # `decode` silences Pillow's warnings with the same context, which threads could leave in the wrong order.
            with warnings.catch_warnings(action="ignore"):
                rows = range(start, min(start + _IMAGES_AT_ONCE, len(images)))
                read = list(pool.map(partial(_read, images), rows))
            log_range_notes(take_range_notes())
            yield from read


def _read(images: EncodedImages, row: int) -> _Fingerprint | str:
    file = images.files[row]
    try:
        content = file.read_bytes()
        pixels = decode(_ReadFile(str(file), content), WholeImage(_DECODED_SIDE), 0, 0)
    except (OSError, UnreadableImage) as error:
        return (isinstance(error, OSError) and error.strerror) or str(error)
    digest = hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
    return (
        digest,
        difference_hash(pixels),
        _mean_pool(pixels, _THUMBNAIL_SIDE, _THUMBNAIL_SIDE).astype(np.uint8).ravel(),
    )


@dataclass(frozen=True)
class _ReadFile:
    """An ImageFile whose bytes were read before."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        return self.content


def difference_hash(pixels: NDArray[np.uint8]) -> int:
    """The 64-bit difference hash (dHash) of an image uint8 [S,S,3]; S is a multiple of 72.

    Neal Krawetz, "Kind of Like That" (hackerfactor.com, 2013): the image is reduced to 9 x 8 gray pixels, and each bit
    says whether a pixel is darker than its right neighbor; here by averaging, of the mean of red, green and blue.
    """
    gray = _mean_pool(pixels, 8, 9).sum(2)
    return int.from_bytes(np.packbits(gray[:, :-1] < gray[:, 1:]).tobytes())


def _mean_pool(pixels: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float64]:
    """The means over the equal rectangles of an image [S,S,3], float64 [rows,columns,3]."""
    side = len(pixels)
    cells = pixels.reshape(rows, side // rows, columns, side // columns, 3)
    means: NDArray[np.float64] = cells.mean((1, 3))
    return means
