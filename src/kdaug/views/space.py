"""How a space reads levels: from an op and its level to the op's arguments. The spaces themselves are in `spaces`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, nearest
from kdaug.rng.philox import Words, below, uniform
from kdaug.views.ops import CODES, MAX_ARGUMENTS
from kdaug.views.plan import Color, Resample, Size

Floats = NDArray[np.float64]
Unit = Literal[
    "degrees",
    "shear",  # Pillow's coefficient
    "shear degrees",  # about the image's centre
    "pixels",
    "sides",  # of the image along the op's axis; of a cutout: its shorter side, and the square lies wholly inside
    "half side",  # of a square centred on any pixel
    "side",  # of such a square; an odd one loses a pixel
    "widths",  # side of a square as share of the image's width, drawn as Fast AutoAugment draws it
    "threshold",
    "bits",
    "factor",
    "1 ± factor",
    "addition",
]


@dataclass(frozen=True)
class Range:
    """An argument's value at level 0 and at the space's full level, linear between them (and past them).

    signed: negated with probability 1/2. whole: what lies above at_0 is truncated, or rounded, to a whole number.
    """

    at_0: float
    at_max: float
    unit: Unit
    signed: bool = False
    whole: Literal["no", "truncated", "rounded"] = "no"


@dataclass(frozen=True, eq=False)
class Space:
    """A system's reading of levels, and all else its ops have in common.

    ops: the table; an op without argument has None. Its order is that in which RandAugment draws.
    fill: colour from outside the image; "mean" is the data set's. cutout_fill: colour of cutouts, where it differs.
    resample: the filter; where there are several, each op draws one.
    full_level: where a range's at_max is reached. limit: largest level allowed; None: no limit. beyond: what the
    system itself does past it, for the error. whole_levels: only 0, 1, 2, ... mean something.
    strength: "exact" uses the level itself, "at most" draws uniformly between 0 and it.
    probability: that RandAugment applies an op it has drawn.
    linspace: values come from a float32 torch.linspace with a bin per whole level.
    """

    name: str
    ops: dict[str, Range | None]
    fill: Color | Literal["mean"]
    resample: tuple[Resample, ...] = ("nearest",)
    cutout_fill: Color | None = None
    full_level: float = 10
    limit: float | None = None
    beyond: str = ""
    whole_levels: bool = False
    strength: Literal["exact", "at most"] = "exact"
    probability: float = 1.0
    linspace: bool = False

    def check_op(self, name: str, where: str) -> None:
        """InputError, beginning with `where`, if the space has no op `name`; "none" is in every space."""
        if name not in self.ops and name != "none":
            raise InputError(
                f"{where}: there is no op {name!r} in space {self.name}{nearest(str(name), list(self.ops))}"
            )

    def check_level(self, level: float, what: str) -> None:
        """InputError, beginning with `what`, if the space has no such level."""
        largest = np.finfo(np.float64).max if self.limit is None else self.limit
        if not 0 <= level <= largest or (self.whole_levels and level != int(level)):
            allowed = f"from 0 to {self.limit:g}" if self.limit is not None else "at least 0"
            whole = "a whole number " if self.whole_levels else ""
            raise InputError(f"{what} is {level:g}, but must be {whole}{allowed} in {self.name}{self.beyond}")

    def code_of(self, name: str) -> int:
        """The code of the op that `name` stands for here."""
        row = self.ops.get(name)
        return CODES["erase"] if row is not None and row.unit == "widths" else CODES[name]

    def arguments(self, op: NDArray[np.integer], level: Floats, sign: Floats, size: Size) -> Floats:
        """Arguments float64 [..., 4] for images of `size`, of ops at levels with signs (1 or -1), all of one shape.

        `op`: int, positions in the table. A cutout has no place yet: its arguments are 0, 0 and its strength.
        """
        argument = np.zeros((*op.shape, MAX_ARGUMENTS))
        for position, (name, row) in enumerate(self.ops.items()):
            chosen = op == position
            if row is not None and chosen.any():
                argument[chosen] = self._argument(name, row, level[chosen], sign[chosen], size)
        return argument

    def _argument(self, name: str, row: Range, level: Floats, sign: Floats, size: Size) -> Floats:
        height, width = size
        scale = {"sides": width if name.endswith("x") else height, "widths": width}.get(row.unit, 1)
        argument = np.zeros((*level.shape, MAX_ARGUMENTS))
        if name == "cutout":
            argument[..., 2] = self._value(row, level, width if row.unit == "widths" else 1)
            return argument
        value = self._value(row, level, scale)
        if row.signed:
            value = value * sign
        if row.unit == "shear degrees":
            # rounded: the last bits of numpy's tangent depend on the processor, and a view must not
            argument[..., 0] = np.tan(np.radians(value)).astype(np.float32)
            argument[..., 1] = -argument[..., 0] * (height if name == "shear-x" else width) / 2
        else:
            argument[..., 0] = 1 + value if row.unit == "1 ± factor" else value
        return argument

    def _value(self, row: Range, level: Floats, scale: int) -> Floats:
        """The unsigned value of `row` at `level`, times `scale`."""
        if self.linspace and row.unit == "bits":  # computed apart there, and not as a linspace
            return row.at_0 + _rounded(level / (self.full_level / (row.at_max - row.at_0)), row)
        if self.linspace:
            spread = _linspace(row.at_0 * scale, row.at_max * scale, int(self.full_level) + 1)
            return _rounded(spread[level.astype(np.int64)], row)
        span = level / self.full_level * (row.at_max - row.at_0)  # in this order: truncation depends on it
        return (row.at_0 + _rounded(span, row)) * scale

    def place_cutouts(self, strength: Floats, x: Words, y: Words, size: Size) -> Floats:
        """Arguments float64 [n,4] of cutouts (of an erase in "widths") of `strength` [n] at places drawn from words."""
        height, width = size
        row = self.ops["cutout"]
        assert row is not None
        argument = np.zeros((len(strength), MAX_ARGUMENTS))
        side = cutout_side(row, strength, size)
        if row.unit == "sides":
            argument[:, 0], argument[:, 1] = below(x, width - side + 1), below(y, height - side + 1)
            argument[:, 2] = side
        elif row.unit == "widths":
            for axis, (word, length) in enumerate([(x, width), (y, height)]):
                centre = length + (1 - length) * uniform(word)  # np.random.uniform(w) goes from w to 1
                start = np.trunc(np.maximum(0, centre - strength / 2))
                end = np.trunc(np.minimum(length, start + strength))  # and PIL's rectangle holds both its corners
                argument[:, axis], argument[:, 2 + axis] = start, np.where(strength > 0, end - start + 1, 0)
        else:
            argument[:, 0], argument[:, 1] = below(x, width) - side / 2, below(y, height) - side / 2
            argument[:, 2] = side
        return argument


def cutout_side(row: Range, strength: Floats, size: Size) -> Floats:
    """Side in pixels of cutouts of `strength` on images of `size`; in "widths" of those away from the border."""
    match row.unit:
        case "half side":
            return 2 * strength
        case "side":
            return 2 * (strength // 2)
        case "sides":
            return np.floor(strength * min(size) + 0.5)
        case _:
            return np.where(strength > 0, np.trunc(strength) + 1, 0)


def _rounded(value: Floats, row: Range) -> Floats:
    if row.whole == "no":
        return value
    return np.trunc(value) if row.whole == "truncated" else np.round(value)


def _linspace(start: float, end: float, count: int) -> Floats:
    """torch.linspace(start, end, count) as float64 [count]: float32 steps from the nearer end."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    position = np.arange(count)
    up, down = np.float64(first) + step * position, np.float64(last) - step * (count - 1 - position)
    return np.where(position < count // 2, up, down).astype(np.float32).astype(np.float64)
