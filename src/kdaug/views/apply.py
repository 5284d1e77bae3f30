"""Carrying out a plan: pixels only, no randomness."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.views.ops import NAMES
from kdaug.views.plan import RESAMPLES, ViewPlan
from kdaug.views.reference import view_of


def apply(images: NDArray[np.uint8], plan: ViewPlan, threads: int | None = None) -> NDArray[np.uint8]:
    """The views of `images` uint8 [N,H,W,C] (C is 1 or 3) under `plan`: a new array uint8 [N,H',W',C].

    `threads`: how many share the work, None one per core; the bytes do not depend on it. Raises InputError for
    images of another type or shape, and for a plan that does not belong to them or holds an unknown op or a
    non-finite argument.
    """
    _check(images, plan, threads)
    views = np.empty((len(images), *plan.output_size, images.shape[3]), np.uint8)

    def fill_in(rows: range) -> None:
        for row in rows:
            views[row] = view_of(images[row], plan, row)

    workers = min(threads if threads is not None else os.cpu_count() or 1, len(images))
    if workers <= 1:
        fill_in(range(len(images)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(fill_in, [range(start, len(images), workers) for start in range(workers)]))
    return views


def _check(images: NDArray[np.uint8], plan: ViewPlan, threads: int | None) -> None:
    dtype = getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8:
        raise InputError(f"images must be a uint8 array, not {dtype}")
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(f"images must be [N,H,W,C] with C 1 or 3, not {list(images.shape)}")
    if images.shape[1:3] != plan.size:
        raise InputError(f"images are {images.shape[1:3]} pixels, but the plan is for {plan.size}")
    if len(images) != len(plan):
        raise InputError(f"there are {len(images)} images, but the plan is for {len(plan)}")
    if plan.op.size and plan.op.max() >= len(NAMES):
        raise InputError(f"the plan holds op code {plan.op.max()}, which is unknown")
    if plan.resample.size and plan.resample.max() >= len(RESAMPLES):
        raise InputError(f"the plan holds resample code {plan.resample.max()}, which is unknown")
    if not np.isfinite(plan.argument).all():
        row, step, _ = np.argwhere(~np.isfinite(plan.argument))[0]
        raise InputError(f"image {row} of the plan: op {NAMES[plan.op[row, step]]} has a non-finite argument")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, but must be at least 1")
