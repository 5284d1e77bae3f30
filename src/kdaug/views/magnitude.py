"""How strong a planned view is, in one number, whatever policy drew it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kdaug.views.ops import NAMES
from kdaug.views.plan import Size, ViewPlan

Floats = NDArray[np.float64]


def _sheared(argument: Floats, size: Size) -> Floats:
    """Of its angle's 90 degrees."""
    return np.arctan(np.abs(argument[:, 0])) * 2 / np.pi


def _enhanced(argument: Floats, size: Size) -> Floats:
    """How far the factor is from 1."""
    return np.abs(argument[:, 0] - 1)


_SHARES: dict[str, Callable[[Floats, Size], Floats]] = {
    "shear-x": _sheared,
    "shear-y": _sheared,
    "translate-x": lambda argument, size: np.abs(argument[:, 0]) / size[1],
    "translate-y": lambda argument, size: np.abs(argument[:, 0]) / size[0],
    "rotate": lambda argument, size: np.abs(argument[:, 0]) / 90,
    "invert": lambda argument, size: np.ones(len(argument)),
    "solarize": lambda argument, size: (256 - argument[:, 0]) / 256,
    "posterize": lambda argument, size: (8 - argument[:, 0]) / 8,
    "contrast": _enhanced,
    "color": _enhanced,
    "brightness": _enhanced,
    "sharpness": _enhanced,
    "cutout": lambda argument, size: argument[:, 2] / min(size),
    "solarize-add": lambda argument, size: np.abs(argument[:, 0]) / 128,
    "erase": lambda argument, size: np.sqrt(argument[:, 2] * argument[:, 3] / (size[0] * size[1])),
}
"""What share an op has of what it could do at most, from its arguments [n,4]; cut to 0..1 afterwards."""


def planned_magnitude(plan: ViewPlan) -> Floats:
    """The magnitude planned for each view: float64 [N], 0 for a view left as it is.

    Every op adds the share, from 0 to 1, of what it could do at most: shear its angle of 90 degrees, translate and
    cutout of the side of the image, rotate of a quarter turn, the four enhancements how far their factor is from 1,
    solarize and posterize of the levels they change, solarize-add of 128; invert adds 1. In the space paper-geometric
    this is M / 10 at most for each op. Crop and flip, and autocontrast and equalize, which only spread what is there,
    add nothing.
    """
    shares = np.zeros(plan.op.shape)
    for code in np.flatnonzero(np.bincount(plan.op.ravel(), minlength=len(NAMES))):
        if NAMES[code] in _SHARES:
            chosen = plan.op == code
            shares[chosen] = _SHARES[NAMES[code]](plan.argument[chosen], plan.size)
    magnitude: Floats = shares.clip(0, 1).sum(1)
    return magnitude
