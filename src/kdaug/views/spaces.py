"""What a level or magnitude means: for each op, the argument at level 0 and at level 10, as each system has it.

Spaces are tables to be checked with a finger on their sources; between the two ends, and past them unless the space
has a largest level, an argument is linear in the level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, nearest
from kdaug.philox import Words, below, uniform
from kdaug.views.ops import CODES, MAX_ARGUMENTS
from kdaug.views.plan import Color, Resample, Size

Floats = NDArray[np.float64]
Unit = Literal[
    "degrees", "factor", "pixels", "sides", "shear", "shear degrees", "half side", "threshold", "bits", "addition"
]
WORDS_PER_OP = 8
"""Random words set aside per drawn op: choice, strength, sign, position x, position y, and three to spare."""


@dataclass(frozen=True)
class Range:
    """An argument's value at level 0 and 10. `signed`: negated with probability 1/2. `whole`: the span is truncated."""

    at_0: float
    at_10: float
    unit: Unit
    signed: bool = False
    whole: bool = False

    def at(self, level: Floats) -> Floats:
        """The unsigned value at `level`, float64 of the same shape."""
        span = level / 10 * (self.at_10 - self.at_0)  # in this order: truncation depends on it, as in the sources
        return self.at_0 + (np.trunc(span) if self.whole else span)


@dataclass(frozen=True)
class Space:
    """A system's reading of levels.

    fill: colour from outside the image; "mean" is the data set's. strength: "exact" uses the level itself, "at most"
    draws uniformly between 0 and it. max_level: largest magnitude that means something; None: no limit.
    """

    name: str
    fill: Color | Literal["mean"]
    resample: Resample
    strength: Literal["exact", "at most"]
    max_level: float | None
    ops: dict[str, Range | None]

    def draw(self, drawn: Words, magnitude: float, size: Size) -> tuple[NDArray[np.uint8], Floats]:
        """Ops chosen uniformly from the table, at `magnitude`, from random words uint32 [N,S,WORDS_PER_OP].

        Returns op codes uint8 [N,S] and arguments float64 [N,S,4] for images of `size` (height, width).
        """
        codes = np.array([CODES[name] for name in self.ops], np.uint8)
        op = codes[below(drawn[..., 0], len(codes))]
        level = np.full(op.shape, float(magnitude))
        if self.strength == "at most":
            level *= uniform(drawn[..., 1])
        return op, self.arguments(op, level, drawn, size)

    def arguments(self, op: NDArray[np.uint8], level: Floats, drawn: Words, size: Size) -> Floats:
        """Arguments float64 [N,S,4] of ops uint8 [N,S] at levels [N,S]; signs and positions from the random words."""
        argument = np.zeros((*op.shape, MAX_ARGUMENTS))
        sign = np.where(drawn[..., 2] >> np.uint32(31), -1.0, 1.0)
        for name, value_range in self.ops.items():
            chosen = op == CODES[name]
            if value_range is None or not chosen.any():
                continue
            value = value_range.at(level[chosen])
            if value_range.signed:
                value = value * sign[chosen]
            argument[chosen] = _argument(name, value_range.unit, value, drawn[chosen], size)
        return argument


def _argument(name: str, unit: Unit, value: Floats, drawn: Words, size: Size) -> Floats:
    """The plan's arguments float64 [n,4] of op `name` from a value in `unit`."""
    height, width = size
    side = width if name.endswith("x") else height
    argument = np.zeros((len(value), MAX_ARGUMENTS))
    if name == "cutout":
        argument[:, :3] = _cutout(unit, value, drawn, size)
    elif unit == "shear degrees":
        other_side = height if name == "shear-x" else width
        argument[:, 0] = np.tan(np.radians(value))
        argument[:, 1] = -argument[:, 0] * other_side / 2
    else:
        argument[:, 0] = value * side if unit == "sides" else value
    return argument


def _cutout(unit: Unit, value: Floats, drawn: Words, size: Size) -> Floats:
    """Corner and side float64 [n,3]: wholly inside when the value is in sides, else centred anywhere in the image."""
    height, width = size
    if unit == "sides":
        side = np.floor(value * min(size) + 0.5)
        x, y = below(drawn[:, 3], width - side + 1), below(drawn[:, 4], height - side + 1)
        return np.stack([x, y, side], axis=1).astype(np.float64)
    x, y = below(drawn[:, 3], width), below(drawn[:, 4], height)
    return np.stack([x - value, y - value, 2 * value], axis=1)


# The paper's own space (arXiv 2003.11342, Section 4.1). It gives only the ops, that M=0 changes nothing, that M=3
# shifts by at most 30 % of the visible field and that M=10 of any op leaves nothing; the rest is our reading.
PAPER_GEOMETRIC = Space(
    "paper-geometric", fill="mean", resample="nearest", strength="at most", max_level=10,
    ops={
        "shear-x":     Range(0, 90, "shear degrees", signed=True),
        "shear-y":     Range(0, 90, "shear degrees", signed=True),
        "translate-x": Range(0, 1, "sides", signed=True),
        "translate-y": Range(0, 1, "sides", signed=True),
        "cutout":      Range(0, 1, "sides"),
    },
)  # fmt: skip

# RandAugment of the TPU EfficientNet code: tensorflow/tpu 7dc921f, models/official/efficientnet/autoaugment.py,
# whose M is 9, 15 and 28 in the paper. Levels go on past 10 unclipped; pixels are absolute whatever the image size.
# Where that code is undefined (posterize past 8 bits, solarize past 256) ours changes nothing.
TF_EFFICIENTNET = Space(
    "tf-efficientnet", fill=(128, 128, 128), resample="nearest", strength="exact", max_level=None,
    ops={
        "autocontrast": None,
        "equalize":     None,
        "invert":       None,
        "rotate":       Range(0, 30, "degrees", signed=True),
        "posterize":    Range(0, 4, "bits", whole=True),
        "solarize":     Range(0, 256, "threshold", whole=True),
        "color":        Range(0.1, 1.9, "factor"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 100, "pixels", signed=True),
        "translate-y":  Range(0, 100, "pixels", signed=True),
        "cutout":       Range(0, 40, "half side", whole=True),
        "solarize-add": Range(0, 110, "addition", whole=True),
    },
)  # fmt: skip

SPACES = {space.name: space for space in (PAPER_GEOMETRIC, TF_EFFICIENTNET)}


def space_of(name: str) -> Space:
    """The space called `name`; InputError with the nearest name if there is none."""
    if name not in SPACES:
        raise InputError(
            f"there is no space {name!r}{nearest(name, list(SPACES)) or '; there are ' + ', '.join(SPACES)}"
        )
    return SPACES[name]
