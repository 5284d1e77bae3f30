"""Reads images for prediction, several at once in threads, ahead of the network."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from kdaug.data.decode import UnreadableImage, log_range_notes, take_range_notes
from kdaug.data.formats import readable_extensions
from kdaug.data.loader import prefetch
from kdaug.data.resize import tall_images_rule
from kdaug.device import available_cores
from kdaug.inference.preprocessing import ImageInput, Preprocessing

ReadImage = tuple[ImageInput, NDArray[np.uint8] | UnreadableImage]
"""An image and its pixels (see `Preprocessing.pixels`), or why it cannot be read."""


def read_batches(
    preprocessing: Preprocessing, images: Iterable[ImageInput], batch: int
) -> Generator[list[ReadImage], None, None]:
    """`images` with their pixels, in order, in lists of at most `batch`. The next list is read meanwhile.

    Threads and not processes as in training: decoders and kernels work without the GIL, and a program that calls
    kdaug may not allow to fork. Raises InputError for what is not an image.
    """
    tall_images_rule()  # compiles the kernel, with a message, before threads need it
    readable_extensions()  # registers Pillow's plugins
    return prefetch(_read_batches(preprocessing, iter(images), batch), depth=1)


def _read_batches(preprocessing: Preprocessing, images: Iterator[ImageInput], batch: int) -> Iterator[list[ReadImage]]:
    with ThreadPoolExecutor(available_cores(), "kdaug-decode") as pool:
        while items := list(islice(images, batch)):
            unique = {id(image): image for image in items}  # Pillow cannot load one object in two threads
            # `decode` silences Pillow's warnings with the same context, which threads could leave in the wrong order.
            with warnings.catch_warnings(action="ignore"):
                read = dict(zip(unique, pool.map(partial(_read, preprocessing), unique.values()), strict=True))
            log_range_notes(take_range_notes())
            yield [(image, read[id(image)]) for image in items]


def _read(preprocessing: Preprocessing, image: ImageInput) -> NDArray[np.uint8] | UnreadableImage:
    try:
        return preprocessing.pixels(image)
    except UnreadableImage as error:
        return error
