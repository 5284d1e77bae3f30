"""Whether a plan made by hand, or read from a file, can be carried out."""

from __future__ import annotations

import numpy as np

from kdaug.errors import InputError
from kdaug.views.ops import ARGUMENTS, CODES, MAX_ARGUMENTS, NAMES
from kdaug.views.plan import RESAMPLES, ViewPlan

LARGEST_CROP = 1 << 16
_RECTANGLES = ("crop", "cutout", "erase")


def check_plan(plan: ViewPlan) -> None:
    """Everything that the kernels rely on and do not test themselves; InputError naming what is wrong."""
    steps = plan.op.shape
    parts = {"op": (steps, "uint8"), "argument": ((*steps, MAX_ARGUMENTS), "float64")}
    parts |= {"resample": (steps, "uint8"), "fill": ((*steps, 3), "uint8")}
    for name, (shape, dtype) in parts.items():
        part = getattr(plan, name)
        if len(steps) != 2 or part.shape != shape or part.dtype != dtype:
            raise InputError(f"the plan's {name} is {part.dtype} {list(part.shape)}, but must be {dtype} {list(shape)}")
    # Of all tests only these few are made for every batch: small calls of NumPy take as long as some images.
    counts = np.bincount(plan.op.ravel(), minlength=len(NAMES))
    if len(counts) > len(NAMES):
        raise InputError(f"the plan holds op code {len(counts) - 1}, which is unknown")
    if plan.resample.size and plan.resample.max() >= len(RESAMPLES):
        raise InputError(f"the plan holds resample code {plan.resample.max()}, which is unknown")
    if not np.isfinite(plan.argument).all():
        row, step, _ = np.argwhere(~np.isfinite(plan.argument))[0]
        raise InputError(f"image {row} of the plan: op {NAMES[plan.op[row, step]]} has a non-finite argument")
    for name in _RECTANGLES:
        if counts[CODES[name]]:
            _check_rectangles(plan, name)
    if counts[CODES["crop"]] or plan.size != plan.output_size:
        _check_output_size(plan)


def _check_rectangles(plan: ViewPlan, name: str) -> None:
    count = len(ARGUMENTS[name][0])
    at = np.argwhere(plan.op == CODES[name])
    given = plan.argument[at[:, 0], at[:, 1], :count]
    wrong = (given != np.trunc(given)) | (abs(given) >= 2.0**63)
    if wrong.any():
        first = np.flatnonzero(wrong.any(axis=1))[0]
        raise InputError(
            f"image {at[first, 0]} of the plan: op {name} has arguments {given[first].tolist()}, "
            "but they must be whole numbers of 64 bits"
        )


def _check_output_size(plan: ViewPlan) -> None:
    """Every image must end with the plan's output size: that of its last crop, or its own."""
    is_crop = plan.op == CODES["crop"]
    ends = np.tile(np.array(plan.size, np.float64), (len(plan), 1))
    for step in np.flatnonzero(is_crop.any(axis=0)):
        rows = is_crop[:, step]
        ends[rows] = plan.argument[rows, step][:, [3, 2]]
        if (ends > LARGEST_CROP).any():
            row = np.flatnonzero((ends > LARGEST_CROP).any(axis=1))[0]
            raise InputError(f"image {row} of the plan: a crop of more than {LARGEST_CROP} pixels a side")
        if (ends < 0).any():
            raise InputError(f"image {np.flatnonzero((ends < 0).any(axis=1))[0]} of the plan: a crop of negative size")
    wrong = np.flatnonzero((ends != plan.output_size).any(axis=1))
    if len(wrong):
        height, width = ends[wrong[0]].astype(int).tolist()
        raise InputError(
            f"image {wrong[0]} of the plan ends with {(height, width)} pixels, but output_size is {plan.output_size}"
        )
