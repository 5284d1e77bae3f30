"""Carrying out a plan: pixels only, no randomness."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, is_integer
from kdaug.views.plan import ViewPlan, check_plan


def apply(images: NDArray[np.uint8], plan: ViewPlan, threads: int | None = None) -> NDArray[np.uint8]:
    """The views of `images` uint8 [N,H,W,C] (C is 1 or 3) under `plan`: a new array uint8 [N,H',W',C].

    `threads`: how many share the work, None one per core; the bytes do not depend on it. Raises InputError for
    images of another type or shape, for none at all, and for a plan that does not belong to them or holds an unknown
    op, a non-finite argument or a rectangle that is not in whole pixels.
    """
    _check_images(images, plan)
    check_plan(plan)
    if threads is not None and (not is_integer(threads) or threads < 1):
        raise InputError(f"threads is {threads!r}, but must be a whole number of at least 1")
    return apply_unchecked(images, plan, threads if threads is not None else os.cpu_count() or 1)


def apply_unchecked(images: NDArray[np.uint8], plan: ViewPlan, threads: int) -> NDArray[np.uint8]:
    """As `apply`, of images and a plan that are known to be sound: with others it reads and writes anywhere."""
    from kdaug.views.kernels import execute  # numba takes half a second to import

    views = np.empty((len(images), *plan.output_size, images.shape[3]), np.uint8)
    execute(images, plan, views, threads)
    return views


def _check_images(images: NDArray[np.uint8], plan: ViewPlan) -> None:
    dtype = getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8:
        raise InputError(f"images must be a uint8 array, not {dtype}")
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(f"images must be [N,H,W,C] with C 1 or 3, not {list(images.shape)}")
    if not images.size:
        raise InputError(f"images holds no images, or none that has pixels: its shape is {list(images.shape)}")
    if images.shape[1:3] != plan.size:
        raise InputError(f"images are {images.shape[1:3]} pixels, but the plan is for {plan.size}")
    if len(images) != len(plan):
        raise InputError(f"there are {len(images)} images, but the plan is for {len(plan)}")
