"""Runs the kernels for a checked plan: prepares their arguments once per batch and divides the images among threads."""

from __future__ import annotations

import math
import os
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.jit import announce_compilation
from kdaug.views.kernels.engine import apply_plan
from kdaug.views.ops import CODES, NAMES
from kdaug.views.plan import RESAMPLES, ViewPlan

_IS_GEOMETRIC = np.isin(NAMES, ("shear-x", "shear-y", "translate-x", "translate-y", "rotate"))  # by op code
_CHUNKS_PER_THREAD, _MIN_CHUNK_BYTES = 4, 1 << 18  # each chunk has an overhead of about 10 µs, a thread 50 µs
_BILINEAR, _BICUBIC = RESAMPLES.index("bilinear"), RESAMPLES.index("bicubic")
_compiled: set[tuple[bool | None, bool | None]] = set()
"""Filters (see `_used_filters`) for which the kernels are compiled."""


def execute(images: NDArray[np.uint8], plan: ViewPlan, views: NDArray[np.uint8], threads: int) -> None:
    """Applies a checked plan to `images` uint8 [N,H,W,C] and writes the result to `views` uint8 [N,H',W',C]."""
    inputs = [_read_only(array) for array in (images, plan.op, _kernel_arguments(plan), plan.resample, plan.fill)]
    bilinear, bicubic = _used_filters(plan)
    buffer_size = _buffer_size(images, plan)

    def apply_rows(rows: slice) -> None:
        apply_plan(*[array[rows] for array in inputs], views[rows], buffer_size, bilinear, bicubic)

    if (bilinear, bicubic) not in _compiled:  # compile the kernels, or load them, before threads use them
        with announce_compilation():
            apply_rows(slice(0, 0))
        _compiled.add((bilinear, bicubic))
    threads = max(1, min(threads, len(images), images.nbytes // _MIN_CHUNK_BYTES))
    if threads == 1:
        apply_rows(slice(None))
        return
    chunks = iter(_chunks(images, threads))

    def apply_chunks() -> None:
        for rows in chunks:  # the threads share the iterator, so each chunk is taken once
            apply_rows(rows)

    futures = [_thread_pool(threads - 1).submit(apply_chunks) for _ in range(1, threads)]
    apply_chunks()
    for future in futures:
        future.result()


def _chunks(images: NDArray[np.uint8], threads: int) -> list[slice]:
    """Rows of the batch for each chunk. Images take different times, so there are several chunks per thread."""
    count = min(len(images), max(threads, min(_CHUNKS_PER_THREAD * threads, images.nbytes // _MIN_CHUNK_BYTES)))
    ends = [len(images) * chunk // count for chunk in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _used_filters(plan: ViewPlan) -> tuple[bool | None, bool | None]:
    """Whether the plan has bilinear and bicubic steps: True or None each."""
    if not plan.resample.any():
        return None, None
    used = plan.resample[_IS_GEOMETRIC[plan.op]]
    return bool((used == _BILINEAR).any()) or None, bool((used == _BICUBIC).any()) or None


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array, read-only and contiguous, so that numba compiles for one type of array only."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _kernel_arguments(plan: ViewPlan) -> NDArray[np.float64]:
    """The plan's arguments with the degrees of each rotate replaced by cosine and sine."""
    rotates = plan.op == CODES["rotate"]
    if not rotates.any():
        return plan.argument
    argument = plan.argument.copy()
    argument[rotates, :2] = [_cosine_and_sine(degrees) for degrees in argument[rotates, 0].tolist()]
    return argument


@lru_cache(maxsize=1024)
def _cosine_and_sine(degrees: float) -> tuple[float, float]:
    """The coefficients of Pillow's inverse rotation. In Python, because numba's `round` gives other results."""
    angle = -math.radians(degrees % 360.0)
    return round(math.cos(angle), 15), round(math.sin(angle), 15)


def _buffer_size(images: NDArray[np.uint8], plan: ViewPlan) -> int:
    """The largest size in bytes of an image, or of one of its rows, between steps."""
    _, height, width, channels = images.shape
    pixels = int(height * width)
    crops = plan.op == CODES["crop"]
    if crops.any():
        argument = plan.argument[crops]
        pixels = max(pixels, int((argument[:, 2] * argument[:, 3]).max()), int(argument[:, 2].max()))
    return pixels * int(channels)


@cache
def _thread_pool(threads: int) -> Executor:
    """Kept between batches, because starting threads takes as long as many a batch."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kdaug-views")


# After a fork, the child has the pool, but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_thread_pool.cache_clear)
