"""The strength of each planned view as one number, and how much of its image it shows, for plans of any policy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kdaug.views.ops import CODES, NAMES
from kdaug.views.plan import Size, ViewPlan

Floats = NDArray[np.float64]


def _shear_fraction(argument: Floats, size: Size) -> Floats:
    """The shear angle as a fraction of 90 degrees."""
    return np.arctan(np.abs(argument[:, 0])) * 2 / np.pi


def _factor_distance(argument: Floats, size: Size) -> Floats:
    """The distance of the factor from 1."""
    return np.abs(argument[:, 0] - 1)


_FRACTIONS: dict[str, Callable[[Floats, Size], Floats]] = {
    "shear-x": _shear_fraction,
    "shear-y": _shear_fraction,
    "translate-x": lambda argument, size: np.abs(argument[:, 0]) / size[1],
    "translate-y": lambda argument, size: np.abs(argument[:, 0]) / size[0],
    "rotate": lambda argument, size: np.abs(argument[:, 0]) / 90,
    "invert": lambda argument, size: np.ones(len(argument)),
    "solarize": lambda argument, size: (256 - argument[:, 0]) / 256,
    "posterize": lambda argument, size: (8 - argument[:, 0]) / 8,
    "contrast": _factor_distance,
    "color": _factor_distance,
    "brightness": _factor_distance,
    "sharpness": _factor_distance,
    "cutout": lambda argument, size: argument[:, 2] / min(size),
    "solarize-add": lambda argument, size: np.abs(argument[:, 0]) / 128,
    "erase": lambda argument, size: np.sqrt(argument[:, 2] * argument[:, 3] / (size[0] * size[1])),
}
"""For each op: its arguments [n,4] as a fraction of the strongest ones; clipped to 0..1 afterwards."""


def planned_magnitude(plan: ViewPlan) -> Floats:
    """The magnitude of each view in `plan`: float64 [N], 0 for an unchanged view.

    Each op adds a fraction 0..1: shear and rotate their angle / 90 degrees, translate its shift / the image's side,
    cutout its side / the image's shorter side, erase the square root of its fraction of the area, invert 1, solarize
    the fraction of values that it inverts, posterize the fraction of bits that it clears, solarize-add its addition /
    128, and contrast, color, brightness and sharpness the distance of their factor from 1. Crop, flip, autocontrast and
    equalize add 0. In space paper-geometric each op adds at most M / 10. An op in a chain of AugMix counts with the
    weight of its chain in the view.
    """
    fractions = np.zeros(plan.op.shape)
    for code in np.flatnonzero(np.bincount(plan.op.ravel(), minlength=len(NAMES))):
        if NAMES[code] in _FRACTIONS:
            selected = plan.op == code
            fractions[selected] = _FRACTIONS[NAMES[code]](plan.argument[selected], plan.size)
    fractions = fractions.clip(0, 1)
    mix = plan.chain_mix
    if mix is not None:
        fractions[:, mix.first : mix.stop] *= mix.view_weights().repeat(mix.depth, axis=1)
    magnitude: Floats = fractions.sum(1)
    return magnitude


def visible_share(plan: ViewPlan) -> Floats:
    """The share of each image that is visible in its crop of the same size: float64 [N] in 0..1; 1 without a crop.

    Only crops count: other ops may move parts of the image out of view as well, but change it otherwise, too. A crop
    after other ops counts as a crop of the image.
    """
    visible, is_crop = np.ones(len(plan)), plan.op == CODES["crop"]
    height, width = plan.size
    for step in np.flatnonzero(is_crop.any(axis=0)):
        rows = is_crop[:, step]
        left, top, crop_width, crop_height = plan.argument[rows, step].T
        columns = (np.minimum(width, left + crop_width) - np.maximum(0, left)).clip(0)
        lines = (np.minimum(height, top + crop_height) - np.maximum(0, top)).clip(0)
        visible[rows] *= columns * lines / (width * height)
    return visible
