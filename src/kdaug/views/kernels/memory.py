"""Copying pixels. Buffers have SLACK bytes after their last pixel, so that every pixel can be copied as four bytes."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kdaug.jit import kernel

SLACK = 4


@intrinsic
def load_uint32(typing_context, array, position):
    """Reads four bytes of uint8 [n] at an unsigned, possibly unaligned position as uint32. Bounds are not checked."""

    def generate(context, builder, signature, arguments):
        word = builder.load(_address_of_word(context, builder, signature, arguments))
        word.align = 1
        return word

    return types.uint32(array, types.uint64), generate


@intrinsic
def store_uint32(typing_context, array, position, word):
    """Writes uint32 `word` to four bytes of uint8 [n] at an unsigned position. Bounds are not checked."""

    def generate(context, builder, signature, arguments):
        builder.store(arguments[2], _address_of_word(context, builder, signature, arguments)).align = 1
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint32), generate


def _address_of_word(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    return builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(32).as_pointer())


@kernel
def copy(target, source):
    """Copies the first len(target) values of 1-D `source` to 1-D `target`.

    Much faster than target[:] = source: LLVM vectorizes this loop, but not numba's general array indexing.
    """
    for i in range(len(target)):
        target[i] = source[i]


@kernel
def gather(target, start, source, base, offsets, count, channels):
    """Copies `count` pixels from bytes base + offsets (uint32 [>=count]) of `source` to byte `start` of `target`.

    Both are uint8 [n]. A pixel is copied as four bytes, so up to three bytes after the last pixel change too: write
    `target` from left to right.
    """
    first, stride, base = np.uint64(start), np.uint64(channels), np.uint64(base)
    for x in range(np.uint64(count)):
        store_uint32(target, first + stride * x, load_uint32(source, base + np.uint64(offsets[x])))
