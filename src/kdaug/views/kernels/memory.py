"""Moving bytes. Buffers of pixels have SLACK bytes behind their last pixel, so that four bytes can be moved at once."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kdaug.jit import kernel

SLACK = 4


@intrinsic
def load_four(typing_context, array, position):
    """The four bytes of uint8 [n] at an unsigned position, aligned or not, as uint32. No bound is checked."""

    def generate(context, builder, signature, arguments):
        word = builder.load(_address_of_word(context, builder, signature, arguments))
        word.align = 1
        return word

    return types.uint32(array, types.uint64), generate


@intrinsic
def store_four(typing_context, array, position, word):
    """Writes uint32 `word` to the four bytes of uint8 [n] at an unsigned position. No bound is checked."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address_of_word(context, builder, signature, arguments)).align = 1
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint32), generate


def _address_of_word(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(32).as_pointer())


@kernel
def copy(target, source):
    """Fills 1-D `target` with the first values of `source`. Much quicker than target[:] = source: here LLVM sees a loop
    over neighbours, there numba goes through the general indexing of arrays, value by value."""
    for i in range(len(target)):
        target[i] = source[i]


@kernel
def gather(target, start, source, base, offsets, count, channels):
    """Writes `count` pixels to uint8 [n] from byte `start` on: those of `source` at base + offsets (uint32 [>=count]).

    A pixel is moved as four bytes, so up to three bytes behind the last one change too: write from left to right.
    """
    to, stride, base = np.uint64(start), np.uint64(channels), np.uint64(base)
    for x in range(np.uint64(count)):
        store_four(target, to + stride * x, load_four(source, base + np.uint64(offsets[x])))
