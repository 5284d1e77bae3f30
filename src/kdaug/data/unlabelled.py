"""Images without labels: where they come from, and how they are mixed into the batches of labelled ones."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaug.data.folder_index import FilePaths, files_under
from kdaug.data.formats import is_image
from kdaug.data.images import ArrayImages, EncodedImages, ImageFile, ImageFiles, Images
from kdaug.errors import InputError
from kdaug.rng import Stream, permutation, random_words

NO_LABEL = -1
"""The label of an image without one."""


def without_labels(images: ArrayImages) -> ArrayImages:
    """`images` with NO_LABEL in place of their labels."""
    return ArrayImages(images.images, np.full(len(images), NO_LABEL))


def read_unlabelled_folder(folder: Path, apart_from: Path) -> tuple[EncodedImages, list[bytes]]:
    """All images in `folder` and below it, sorted by path, and their paths relative to it.

    Raises InputError if the folder cannot be read, has no images, or contains or is in the folder `apart_from`, whose
    images have labels.
    """
    hint = "give the folder of the unlabelled images"
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist", hint)
    real, other = folder.resolve(), apart_from.resolve()
    if real == other or real in other.parents or other in real.parents:
        raise InputError(
            f"folder {folder} of unlabelled images overlaps with {apart_from}, whose images have labels",
            "keep the two apart",
        )
    try:
        paths = sorted(files_under(folder, is_image))
    except OSError as error:
        raise InputError(f"folder {error.filename} cannot be read ({error.strerror})") from None
    if not paths:
        raise InputError(f"folder {folder} has no images", hint)
    names = [os.fsencode(os.path.relpath(path, folder)) for path in paths]
    files = FilePaths.from_bytes(folder, b"\0".join(names), len(names))
    return EncodedImages(files, np.full(len(names), NO_LABEL)), names


class _FileList:
    """Files of several folders, in the order of `parts`."""

    def __init__(self, *parts: ImageFiles) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, row: int) -> ImageFile:
        for part in self._parts:
            if row < len(part):
                return part[row]
            row -= len(part)
        raise IndexError(row)

    def take(self, rows: NDArray[np.int64]) -> _FileList:
        """The files at `rows`, which must be sorted."""
        taken, start = list[ImageFiles](), 0
        for part in self._parts:
            inside = rows[(rows >= start) & (rows < start + len(part))]
            taken.append(part.take(inside - start))
            start += len(part)
        return _FileList(*taken)


def concatenate(labelled: Images, unlabelled: Images) -> Images:
    """Both, the labelled ones first. Either both are in memory or both are encoded."""
    labels = np.concatenate([labelled.labels, unlabelled.labels])
    if isinstance(labelled, ArrayImages):
        assert isinstance(unlabelled, ArrayImages)
        return ArrayImages(np.concatenate([labelled.images, unlabelled.images]), labels)
    assert isinstance(unlabelled, EncodedImages)
    return EncodedImages(_FileList(labelled.files, unlabelled.files), labels)


def check_enough(labelled: int, unlabelled: int, batch: int, unlabelled_in_batch: int) -> None:
    """Raises InputError if there are too few unlabelled images for an epoch. The hint names a share that works."""
    needed = _needed(labelled, batch, unlabelled_in_batch)
    if unlabelled >= needed:
        return
    most = next((u for u in range(unlabelled_in_batch, 0, -1) if _needed(labelled, batch, u) <= unlabelled), 0)
    raise InputError(
        f"an epoch needs {needed:,} unlabelled images, {unlabelled_in_batch} in each batch of {batch}, but there are "
        f"{unlabelled:,}",
        f"set data.unlabelled_share to {most / batch:.4g}" if most else "add images",
    )


def _needed(labelled: int, batch: int, unlabelled_in_batch: int) -> int:
    """How many unlabelled images an epoch uses."""
    return labelled // (batch - unlabelled_in_batch) * unlabelled_in_batch


def mixed_order(
    labelled: int, unlabelled: int, batch: int, unlabelled_in_batch: int, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The images of an epoch, batch after batch: int64 [steps x batch]. A pure function of its arguments.

    Every batch has `unlabelled_in_batch` of the `unlabelled` images, which come after the `labelled` ones, at random
    places. Every labelled image is used once, except those that do not fill a batch; the unlabelled ones are drawn
    without repetition, of which there must be enough (`check_enough`).
    """
    labelled_in_batch = batch - unlabelled_in_batch
    steps = labelled // labelled_in_batch
    first = permutation(seed, epoch, labelled)[: steps * labelled_in_batch].reshape(steps, labelled_in_batch)
    second = labelled + permutation(seed, epoch, unlabelled, Stream.UNLABELLED)[: steps * unlabelled_in_batch]
    together = np.concatenate([first, second.reshape(steps, unlabelled_in_batch)], axis=1)
    # The third word: permutation uses the first two.
    place = random_words(seed, epoch, np.arange(together.size), Stream.UNLABELLED, 3)[:, 2].reshape(together.shape)
    return np.take_along_axis(together, place.argsort(axis=1, kind="stable"), axis=1).ravel()
