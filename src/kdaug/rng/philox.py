"""Philox4x32-10: random words as a pure function of (seed, epoch, sample index, stream).

Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. A counter-based generator has no
state to lose, so a draw is the same in any worker, batch split, process or machine, and after any resume.

The 64-bit key is the seed; the four 32-bit counter words are (block | stream << 16, epoch, index low, index high).
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kdaug.errors import InputError, is_integer

Words = NDArray[np.uint32]

_MASK = 0xFFFFFFFF


class Stream(IntEnum):
    """What a draw is for; draws of different streams are independent."""

    ORDER = 0
    POLICY = 1
    CROP = 2
    FLIP = 3
    CUTOUT = 4
    SUBSET = 5
    ERASING = 6
    MIXING = 7


def philox4x32(counter: NDArray[np.uint32], key: tuple[int, int]) -> Words:
    """Ten rounds of Philox4x32 over `counter` uint32 [..., 4] under `key` (two 32-bit words); uint32 [..., 4]."""
    from kdaug.rng.kernel import encrypt  # numba takes half a second to import

    counters = np.ascontiguousarray(counter).reshape(-1, 4)
    drawn = np.empty_like(counters)
    encrypt(counters, np.uint64(key[0]), np.uint64(key[1]), drawn)
    return drawn.reshape(counter.shape)


def words(seed: int, epoch: int, indices: ArrayLike, stream: int, count: int) -> Words:
    """`count` random words for every sample: uint32 [N, count].

    `seed` is 0..2^64-1, `epoch` 0..2^32-1, `indices` int64 [N] non-negative, `stream` 0..65535. The first words do
    not depend on `count`. Raises InputError for a key that is none.
    """
    index = np.atleast_1d(np.asarray(indices))
    if index.ndim != 1 or (index.size and (index.dtype.kind not in "iu" or index.min() < 0)):
        raise InputError(f"sample indices must be whole numbers from 0 to 2^64-1 in one row, not {indices!r:.80}")
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


def uniform(random_words: Words) -> NDArray[np.float64]:
    """Words as float64 in the open interval (0, 1), 2^-32 apart; same shape."""
    return (random_words.astype(np.float64) + 0.5) * 2.0**-32


def below(random_words: Words, bound: ArrayLike) -> NDArray[np.int64]:
    """Words as integers 0..bound-1 (`bound` broadcasts, 1..2^31); probabilities differ by at most bound / 2^32."""
    wide = random_words.astype(np.uint64) * np.asarray(bound).astype(np.uint64)
    return (wide >> np.uint64(32)).astype(np.int64)


def permutation(seed: int, epoch: int, count: int, stream: int = Stream.ORDER) -> NDArray[np.int64]:
    """The numbers 0..count-1 in an order that depends on (seed, epoch, stream) alone; int64 [count]."""
    drawn = words(seed, epoch, np.arange(count), stream, 2).astype(np.uint64)
    return np.argsort((drawn[:, 0] << np.uint64(32)) | drawn[:, 1], kind="stable")
