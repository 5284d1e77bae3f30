"""The rounds of Philox4x32, compiled by numba: NumPy would need about a hundred passes over the counters."""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel

_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_MASK, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ROUNDS = 10


@kernel
def philox_rounds(counters, key_0, key_1, out):
    """Ten rounds over `counters` uint32 [n,4], written to `out` uint32 [n,4]. key_0, key_1: 32-bit words, as uint64."""
    for i in range(len(counters)):
        c0, c1 = np.uint64(counters[i, 0]), np.uint64(counters[i, 1])
        c2, c3 = np.uint64(counters[i, 2]), np.uint64(counters[i, 3])
        k0, k1 = key_0, key_1
        for _ in range(_ROUNDS):
            product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
            c0, c1 = (product_1 >> _HALF) ^ c1 ^ k0, product_1 & _MASK
            c2, c3 = (product_0 >> _HALF) ^ c3 ^ k1, product_0 & _MASK
            k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
        out[i, 0], out[i, 1] = np.uint32(c0), np.uint32(c1)
        out[i, 2], out[i, 3] = np.uint32(c2), np.uint32(c3)
