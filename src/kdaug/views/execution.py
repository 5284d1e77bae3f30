"""Applying a plan to images: deterministic, without random draws."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, is_integer
from kdaug.views.chains import blend_chains
from kdaug.views.plan import ViewPlan, check_plan


def apply(images: NDArray[np.uint8], plan: ViewPlan, threads: int | None = None) -> NDArray[np.uint8]:
    """Applies `plan` to `images` uint8 [N,H,W,C] (C is 1 or 3) and returns a new array uint8 [N,H',W',C].

    The result equals Pillow's byte for byte (on x86-64) and does not depend on `threads`, the number of threads (None:
    one per core). Raises InputError if the images are empty or of another dtype or shape, if the plan is for other
    images, and if the plan is invalid (`check_plan`).
    """
    _check_images(images, plan)
    check_plan(plan)
    if threads is not None and (not is_integer(threads) or threads < 1):
        raise InputError(f"threads is {threads!r}, but must be a whole number of at least 1")
    return apply_unchecked(images, plan, threads if threads is not None else os.cpu_count() or 1)


def apply_unchecked(images: NDArray[np.uint8], plan: ViewPlan, threads: int) -> NDArray[np.uint8]:
    """`apply` without any checks. Invalid images or plans make it read and write memory out of bounds."""
    from kdaug.views.kernels import execute  # numba takes half a second to import

    if plan.chain_mix is not None:
        before, chains, after = plan.split()
        images = apply_unchecked(images, before, threads)
        results = [apply_unchecked(images, chain, threads) for chain in chains]
        return apply_unchecked(blend_chains(images, results, plan.chain_mix), after, threads)
    views = np.empty((len(images), *plan.output_size, images.shape[3]), np.uint8)
    execute(images, plan, views, threads)
    return views


def _check_images(images: NDArray[np.uint8], plan: ViewPlan) -> None:
    """Checks dtype and shape, and that the plan is for images of this number and size."""
    dtype = getattr(images, "dtype", type(images).__name__)
    if dtype != np.uint8:
        raise InputError(f"images must be a uint8 array, not {dtype}")
    if images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(f"images must be [N,H,W,C] with C 1 or 3, not {list(images.shape)}")
    if not images.size:
        raise InputError(f"images is empty: its shape is {list(images.shape)}")
    if images.shape[1:3] != plan.size:
        raise InputError(f"images are {images.shape[1:3]} pixels, but the plan is for {plan.size}")
    if len(images) != len(plan):
        raise InputError(f"images has {len(images)} images, but the plan is for {len(plan)}")
