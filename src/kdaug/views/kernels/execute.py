"""From a checked plan to the kernels: what is computed once per batch, and who does which images."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.jit import announce_compilation
from kdaug.views.kernels.engine import views_of
from kdaug.views.ops import CODES, NAMES
from kdaug.views.plan import RESAMPLES, ViewPlan

_IS_GEOMETRIC = np.isin(NAMES, ("shear-x", "shear-y", "translate-x", "translate-y", "rotate"))  # by op code
_PIECES_EACH, _BYTES_WORTH_A_PIECE = 4, 1 << 18  # a piece costs some 10 µs besides its work
_BILINEAR, _BICUBIC = RESAMPLES.index("bilinear"), RESAMPLES.index("bicubic")


def execute(images: NDArray[np.uint8], plan: ViewPlan, views: NDArray[np.uint8], threads: int) -> None:
    """Fills `views` uint8 [N,H',W',C] with the views of `images` uint8 [N,H,W,C] under a checked plan."""
    given = [_frozen(part) for part in (images, plan.op, _with_cosines(plan), plan.resample, plan.fill)]
    bilinear, bicubic = _filters(plan)
    capacity = _capacity(images, plan)

    def do(rows: slice) -> None:
        views_of(*[part[rows] for part in given], views[rows], capacity, bilinear, bicubic)

    _compile(do, bilinear, bicubic)
    workers = min(threads, len(images))
    if workers == 1:
        views_of(*given, views, capacity, bilinear, bicubic)
        return
    pieces = iter(_pieces(images, workers))

    def take_pieces() -> None:
        for piece in pieces:  # of an iterator each is taken once, whoever asks
            do(piece)

    others = [_pool(workers - 1).submit(take_pieces) for _ in range(1, workers)]
    take_pieces()
    for other in others:
        other.result()


def _pieces(images: NDArray[np.uint8], workers: int) -> list[slice]:
    """Rows of the batch for `workers` to take in turn: images differ in work, so each gets several pieces if it can."""
    count = min(len(images), max(workers, min(_PIECES_EACH * workers, images.nbytes // _BYTES_WORTH_A_PIECE)))
    ends = [len(images) * piece // count for piece in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(ends)]


def _filters(plan: ViewPlan) -> tuple[bool | None, bool | None]:
    """Whether the plan has bilinear and bicubic steps, each True or None."""
    if not plan.resample.any():
        return None, None
    used = plan.resample[_IS_GEOMETRIC[plan.op]]
    return bool((used == _BILINEAR).any()) or None, bool((used == _BICUBIC).any()) or None


_compiled: set[tuple[bool | None, bool | None]] = set()


def _compile(do: Callable[[slice], None], bilinear: bool | None, bicubic: bool | None) -> None:
    """Has the kernels for these filters ready before threads need them, and says so if that takes a while."""
    if (bilinear, bicubic) not in _compiled:
        with announce_compilation():
            do(slice(0, 0))
        _compiled.add((bilinear, bicubic))


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    """Read-only and contiguous, so that all callers' arrays are of one type and the kernels are compiled once."""
    frozen = np.ascontiguousarray(array).view()
    frozen.flags.writeable = False
    return frozen


def _with_cosines(plan: ViewPlan) -> NDArray[np.float64]:
    """The plan's arguments with cosine and sine in place of each rotate's degrees."""
    rotates = plan.op == CODES["rotate"]
    if not rotates.any():
        return plan.argument
    argument = plan.argument.copy()
    argument[rotates, :2] = [_cosine_and_sine(degrees) for degrees in argument[rotates, 0].tolist()]
    return argument


@lru_cache(maxsize=1024)
def _cosine_and_sine(degrees: float) -> tuple[float, float]:
    """Of Pillow's inverse rotation, rounded as Pillow does. In Python, whose rounding to decimals numba's is not."""
    angle = -math.radians(degrees % 360.0)
    return round(math.cos(angle), 15), round(math.sin(angle), 15)


def _capacity(images: NDArray[np.uint8], plan: ViewPlan) -> int:
    """The most bytes an image has between steps, or a row of it."""
    _, height, width, channels = images.shape
    pixels = int(height * width)
    crops = plan.op == CODES["crop"]
    if crops.any():
        cropped = plan.argument[crops]
        pixels = max(pixels, int((cropped[:, 2] * cropped[:, 3]).max()), int(cropped[:, 2].max()))
    return pixels * int(channels)


@cache
def _pool(workers: int) -> Executor:
    """Kept, because starting threads takes as long as many a batch."""
    return ThreadPoolExecutor(workers, thread_name_prefix="kdaug-views")


# A forked process has the pool, but none of its threads.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)
