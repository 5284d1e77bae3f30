"""How strong a planned view is, in one number, whatever policy drew it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdaug.views.ops import CODES
from kdaug.views.plan import ViewPlan

Floats = NDArray[np.float64]


def planned_magnitude(plan: ViewPlan) -> Floats:
    """The magnitude planned for each view: float64 [N], 0 for a view left as it is.

    Every op adds the share, from 0 to 1, of what it could do at most: shear its angle of 90 degrees, translate and
    cutout of the side of the image, rotate of a quarter turn, the four enhancements how far their factor is from 1,
    solarize and posterize of the levels they change, solarize-add of 128; invert adds 1. In the space paper-geometric
    this is M / 10 at most for each op. Crop and flip, and autocontrast and equalize, which only spread what is there,
    add nothing.
    """
    height, width = plan.size
    first, third, fourth = (np.abs(plan.argument[..., place]) for place in (0, 2, 3))
    enhanced = np.abs(plan.argument[..., 0] - 1)
    shares = {
        "shear-x": np.arctan(first) * 2 / np.pi,
        "shear-y": np.arctan(first) * 2 / np.pi,
        "translate-x": first / width,
        "translate-y": first / height,
        "rotate": first / 90,
        "invert": np.ones_like(first),
        "solarize": (256 - plan.argument[..., 0]) / 256,
        "posterize": (8 - plan.argument[..., 0]) / 8,
        "contrast": enhanced,
        "color": enhanced,
        "brightness": enhanced,
        "sharpness": enhanced,
        "cutout": third / min(plan.size),
        "solarize-add": first / 128,
        "erase": np.sqrt(third * fourth / (height * width)),
    }
    total = np.zeros(len(plan))
    for name, share in shares.items():
        total += np.where(plan.op == CODES[name], share.clip(0, 1), 0).sum(1)
    return total
