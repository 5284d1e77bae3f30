"""Philox4x32-10: random words as a pure function of (seed, epoch, sample index, stream).

Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. A counter-based generator has no
state. A draw is the same in any worker, batch split, process and machine, and after a run is resumed.

The 64-bit key is the seed. The counter is four 32-bit words: (block | stream << 16, epoch, index low, index high).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError, is_integer

Words = NDArray[np.uint32]

_MASK = 0xFFFFFFFF


class Stream(IntEnum):
    """The purpose of a draw. Draws of different streams are independent. The numbers must never change."""

    ORDER = 0
    POLICY = 1
    CROP = 2
    FLIP = 3
    CUTOUT = 4
    SUBSET = 5
    ERASING = 6
    MIXING = 7
    SAMPLING = 8
    UNLABELLED = 9


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> Words:
    """Philox4x32-10 of `counter` uint32 [..., 4] with `key` (two 32-bit words): uint32 [..., 4]."""
    from kdaug.rng.kernel import philox_rounds  # numba takes half a second to import

    counters = np.ascontiguousarray(counter).reshape(-1, 4)
    drawn = np.empty_like(counters)
    philox_rounds(counters, np.uint64(key[0]), np.uint64(key[1]), drawn)
    return drawn.reshape(counter.shape)


def random_words(seed: int, epoch: int, indices: ArrayLike, stream: int, count: int) -> Words:
    """`count` random 32-bit words for each sample: uint32 [N, count].

    seed: 0..2^64-1. epoch: 0..2^32-1. indices: integers [N], not negative. stream: 0..65535. The first words do not
    depend on `count`. Raises InputError for any other seed, epoch or indices.
    """
    index = np.atleast_1d(np.asarray(indices))
    if index.ndim != 1 or (index.size and (index.dtype.kind not in "iu" or index.min() < 0)):
        raise InputError(f"sample indices must be a list of whole numbers from 0 to 2^64-1, not {indices!r:.80}")
    for name, value, limit in (("seed", seed, 64), ("epoch", epoch, 32)):
        if not is_integer(value) or not 0 <= value < 1 << limit:
            raise InputError(f"{name} is {value!r}, but must be a whole number from 0 to 2^{limit}-1")
    seed, epoch = int(seed), int(epoch)
    index = index.astype(np.uint64)
    blocks = -(-count // 4)
    counter = np.empty((len(index), blocks, 4), np.uint32)
    counter[..., 0] = np.arange(blocks, dtype=np.uint32) | np.uint32(stream << 16)
    counter[..., 1] = epoch
    counter[..., 2] = (index & np.uint64(_MASK))[:, None]
    counter[..., 3] = (index >> np.uint64(32))[:, None]
    drawn = philox4x32(counter, (seed & _MASK, seed >> 32))
    return drawn.reshape(len(index), blocks * 4)[:, :count]


def uniform(words: Words) -> NDArray[np.float64]:
    """Converts words to float64 in the open interval (0, 1), in steps of 2^-32; same shape."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def integers_below(words: Words, bound: ArrayLike) -> NDArray[np.int64]:
    """Converts words to integers 0..bound-1 (bound: 1..2^31, broadcast). Probabilities differ by up to bound / 2^32."""
    wide = words.astype(np.uint64) * np.asarray(bound).astype(np.uint64)
    return (wide >> np.uint64(32)).astype(np.int64)


def permutation(seed: int, epoch: int, count: int, stream: int = Stream.ORDER) -> NDArray[np.int64]:
    """A random permutation of 0..count-1, int64 [count]. It depends on (seed, epoch, stream) alone."""
    drawn = random_words(seed, epoch, np.arange(count), stream, 2).astype(np.uint64)
    return np.argsort((drawn[:, 0] << np.uint64(32)) | drawn[:, 1], kind="stable")
