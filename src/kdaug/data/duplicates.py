"""Finds copies among images: files with equal bytes, and images that look the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdaug.data.fingerprints import Fingerprints

MAX_DISTANCE = 10
"""Bits in which the difference hashes of two similar images may differ, of 64."""
MAX_DIFFERENCE = 0.15
"""Largest difference of the thumbnails of two similar images, as a fraction of their contrast."""
MAX_COMPARED = 200_000
"""Images up to which all pairs are compared: 2e10 pairs, as many as are compared in minutes."""
_TILE = 2048
_CONFIRMED_AT_ONCE = 1 << 14

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Copies:
    """Pairs of images, int64 [P] rows each: `row` is a copy of `original`, an earlier row. exact: equal bytes, [P]."""

    row: Rows
    original: Rows
    exact: NDArray[np.bool_]


def find_copies(
    prints: Fingerprints, labels: Rows, before_tile: Callable[[], None] = lambda: None, compared: int = MAX_COMPARED
) -> Copies:
    """The copies among images with classes `labels` int64 [N], sorted by row. Unreadable images are left out.

    A file is paired with the first one of equal bytes. Of several files with equal bytes only the first is compared
    with other images; it is paired with the first similar image and, if that is of its class, also with the first
    similar one of another class. Similar images are not searched among more than `compared`. before_tile: is called
    often; its exceptions end the search.
    """
    readable = np.setdiff1d(np.arange(len(prints)), np.array(list(prints.unreadable), np.int64))
    _, first, inverse = np.unique(prints.digests[readable], return_index=True, return_inverse=True)
    original = readable[first[inverse]]
    is_copy = original != readable
    exact = np.stack([readable[is_copy], original[is_copy]])
    unique = readable[~is_copy]
    similar = np.zeros((2, 0), np.int64)
    if len(prints) <= compared:
        similar = _similar_pairs(prints.hashes[unique], prints.thumbnails[unique], labels[unique], before_tile)
        similar = unique[similar]
    pairs = np.concatenate([exact, similar], axis=1)
    order = np.lexsort((pairs[1], pairs[0]))
    return Copies(pairs[0, order], pairs[1, order], (np.arange(len(order)) < exact.shape[1])[order])


def _similar_pairs(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.uint8], labels: Rows, before_tile: Callable[[], None]
) -> Rows:
    """(row, earlier row) of similar images, int64 [2,P]: the first one of any class and the first of another class."""
    count = len(hashes)
    none = count
    first, first_other = np.full(count, none), np.full(count, none)
    for rows, columns in _tiles(count):
        before_tile()
        row, column = _close_pairs(hashes, rows, columns)
        is_other = labels[row] != labels[column]
        open_ = (first[row] == none) | (is_other & (first_other[row] == none))
        row, column = row[open_], column[open_]
        is_similar = _look_alike(thumbnails, row, column)
        row, column = row[is_similar], column[is_similar]
        is_other = labels[row] != labels[column]
        np.minimum.at(first, row, column)
        np.minimum.at(first_other, row[is_other], column[is_other])
    has_first = np.flatnonzero(first < none)
    has_other = np.flatnonzero((first_other < none) & (first_other != first))
    return np.stack(
        [np.concatenate([has_first, has_other]), np.concatenate([first[has_first], first_other[has_other]])]
    )


def _tiles(count: int) -> Iterator[tuple[range, range]]:
    """Squares of the table of all pairs, on and below its diagonal: rows, and columns in increasing order."""
    for row in range(0, count, _TILE):
        for column in range(0, row + 1, _TILE):
            yield range(row, min(row + _TILE, count)), range(column, min(column + _TILE, count))


def _close_pairs(hashes: NDArray[np.uint64], rows: range, columns: range) -> tuple[Rows, Rows]:
    """The pairs (row, earlier row) in a tile whose hashes differ in at most MAX_DISTANCE bits."""
    of_rows, of_columns = hashes[rows.start : rows.stop], hashes[columns.start : columns.stop]
    row, column = np.nonzero(np.bitwise_count(of_rows[:, None] ^ of_columns) <= MAX_DISTANCE)
    row, column = row + rows.start, column + columns.start
    is_earlier = column < row
    return row[is_earlier], column[is_earlier]


def _look_alike(thumbnails: NDArray[np.uint8], row: Rows, column: Rows) -> NDArray[np.bool_]:
    """Whether the thumbnails of each pair differ by at most MAX_DIFFERENCE, [P].

    The difference hash alone takes images for similar that have little but their background in common.
    """
    parts = [
        thumbnail_difference(
            thumbnails[row[start:][:_CONFIRMED_AT_ONCE]], thumbnails[column[start:][:_CONFIRMED_AT_ONCE]]
        )
        for start in range(0, len(row), _CONFIRMED_AT_ONCE)
    ]
    return np.concatenate([np.zeros(0), *parts]) <= MAX_DIFFERENCE


def thumbnail_difference(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The root mean square difference of thumbnails uint8 [P,432], divided by the contrast of the first, [P].

    The contrast is the standard deviation over pixels and colors; at least 8 of 255, so that the noise of JPEG in even
    images does not count.
    """
    one, other = first.astype(np.float32), second.astype(np.float32)
    contrast = np.maximum(one.std(1), 8)
    difference: NDArray[np.float64] = np.sqrt(np.square(one - other).mean(1)) / contrast
    return difference
