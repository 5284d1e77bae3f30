"""How a space turns an op and its level into the op's arguments. `kdaug.views.space_tables` defines the spaces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError, did_you_mean
from kdaug.rng import Words, integers_below, uniform
from kdaug.views.ops import CODES, MAX_ARGUMENTS
from kdaug.views.plan import Color, Resample, Size

Floats = NDArray[np.float64]
Unit = Literal[
    "degrees",
    "shear",  # Pillow's coefficient
    "shear degrees",  # about the image's center
    "pixels",
    "side fraction",  # translate: of width or height; cutout: of the shorter side, the square is inside the image
    "half side",  # cutout: half the side in pixels; the center is any pixel
    "side",  # cutout: the side in pixels, rounded down to an even number; the center is any pixel
    "width fraction",  # cutout: the side as a fraction of the image's width, placed as in Fast AutoAugment
    "threshold",
    "bits",
    "factor",
    "1 ± factor",
    "addition",
]


@dataclass(frozen=True)
class Range:
    """The values of an argument: at_0 at level 0, at_max at the space's full_level, linear between and beyond.

    signed: negated with probability 1/2. rounding: how the difference from at_0 is rounded to an integer. clip: the
    argument is clipped to this interval.
    """

    at_0: float
    at_max: float
    unit: Unit
    signed: bool = False
    rounding: Literal["none", "truncate", "round"] = "none"
    clip: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Space:
    """The ops of one library or paper, and the argument of each op at each level.

    ops: the range of each op's argument, None for ops without argument. The order determines what RandAugment draws.
    fill: color of pixels from outside the image; "mean" is the dataset's mean. cutout_fill: color of cutouts; None:
    `fill`. resample: filter of geometric ops; if there are several, each op draws one.
    full_level: the level at which ranges reach at_max. limit: the largest allowed level; None: no limit. limit_note:
    appended to the error for a larger level. integer_levels: whether levels must be integers.
    level_mode: "exact" uses the given level, "uniform" draws a level from 0 to it.
    probability: the probability with which RandAugment applies a drawn op.
    linspace: as in torchvision, values are elements of a float32 torch.linspace, one for each integer level.
    """

    name: str
    ops: dict[str, Range | None]
    fill: Color | Literal["mean"]
    resample: tuple[Resample, ...] = ("nearest",)
    cutout_fill: Color | None = None
    full_level: float = 10
    limit: float | None = None
    limit_note: str = ""
    integer_levels: bool = False
    level_mode: Literal["exact", "uniform"] = "exact"
    probability: float = 1.0
    linspace: bool = False

    def check_op(self, name: str, where: str) -> None:
        """Raises InputError, starting with `where`, if the space has no op `name`. Every space has the op "none"."""
        if name not in self.ops and name != "none":
            raise InputError(
                f"{where}: there is no op {name!r} in space {self.name}{did_you_mean(str(name), list(self.ops))}"
            )

    def check_level(self, level: float, what: str) -> None:
        """Raises InputError, starting with `what`, if `level` is out of range."""
        largest = np.finfo(np.float64).max if self.limit is None else self.limit
        if not 0 <= level <= largest or (self.integer_levels and level != int(level)):
            allowed = f"from 0 to {self.limit:g}" if self.limit is not None else "at least 0"
            whole = "a whole number " if self.integer_levels else ""
            raise InputError(f"{what} is {level:g}, but must be {whole}{allowed} in {self.name}{self.limit_note}")

    def code_of(self, name: str) -> int:
        """The code of op `name` in plans; a cutout clipped to a rectangle is an "erase"."""
        op_range = self.ops.get(name)
        return CODES["erase"] if op_range is not None and op_range.unit == "width fraction" else CODES[name]

    def arguments(self, op: NDArray[np.integer], level: Floats, sign: Floats, size: Size) -> Floats:
        """The arguments of ops for images of `size` (height, width), float64 [..., 4].

        op: int, positions in the table of ops. level, sign (1 or -1): float64. All three have the shape [...].
        A cutout has no position yet: its arguments are 0, 0 and its value in the unit of its range.
        """
        argument = np.zeros((*op.shape, MAX_ARGUMENTS))
        for position, (name, op_range) in enumerate(self.ops.items()):
            selected = op == position
            if op_range is not None and selected.any():
                argument[selected] = self._arguments_of(name, op_range, level[selected], sign[selected], size)
        return argument

    def _arguments_of(self, name: str, op_range: Range, level: Floats, sign: Floats, size: Size) -> Floats:
        height, width = size
        argument = np.zeros((*level.shape, MAX_ARGUMENTS))
        if name == "cutout":
            argument[..., 2] = self._value(op_range, level, width if op_range.unit == "width fraction" else 1)
            return argument
        side = width if name.endswith("x") else height
        value = self._value(op_range, level, side if op_range.unit == "side fraction" else 1)
        if op_range.signed:
            value = value * sign
        if op_range.unit == "shear degrees":
            # float32, because the last bits of numpy's tangent depend on the processor
            argument[..., 0] = np.tan(np.radians(value)).astype(np.float32)
            argument[..., 1] = -argument[..., 0] * (height if name == "shear-x" else width) / 2
        else:
            argument[..., 0] = 1 + value if op_range.unit == "1 ± factor" else value
        if op_range.clip is not None:
            argument[..., 0] = argument[..., 0].clip(*op_range.clip)
        return argument

    def _value(self, op_range: Range, level: Floats, scale: int) -> Floats:
        """The unsigned value of the range at `level`, times `scale`."""
        at_0, at_max = op_range.at_0, op_range.at_max
        if self.linspace and op_range.unit == "bits":  # torchvision computes bits without linspace
            return at_0 + _round(level / (self.full_level / (at_max - at_0)), op_range)
        if self.linspace:
            bins = _linspace(at_0 * scale, at_max * scale, int(self.full_level) + 1)
            return _round(bins[level.astype(np.int64)], op_range)
        difference = level / self.full_level * (at_max - at_0)  # truncation depends on this order of operations
        return (at_0 + _round(difference, op_range)) * scale

    def place_cutouts(self, value: Floats, x: Words, y: Words, size: Size) -> Floats:
        """Arguments float64 [n,4] of cutouts on images of `size` (height, width).

        value: float64 [n], as `arguments` returns it. x, y: random words [n] that give the position.
        """
        height, width = size
        op_range = self.ops["cutout"]
        assert op_range is not None
        argument = np.zeros((len(value), MAX_ARGUMENTS))
        side = cutout_side(op_range, value, size)
        if op_range.unit == "side fraction":
            argument[:, 0], argument[:, 1] = integers_below(x, width - side + 1), integers_below(y, height - side + 1)
            argument[:, 2] = side
        elif op_range.unit == "width fraction":
            for axis, (word, length) in enumerate([(x, width), (y, height)]):
                center = length + (1 - length) * uniform(word)  # np.random.uniform(w) draws from w to 1
                start = np.trunc(np.maximum(0, center - value / 2))
                end = np.trunc(np.minimum(length, start + value))  # PIL's rectangle includes both corners
                argument[:, axis], argument[:, 2 + axis] = start, np.where(value > 0, end - start + 1, 0)
        else:
            argument[:, 0], argument[:, 1] = integers_below(x, width) - side / 2, integers_below(y, height) - side / 2
            argument[:, 2] = side
        return argument


def cutout_side(op_range: Range, value: Floats, size: Size) -> Floats:
    """Side in pixels of cutouts on images of `size`, from their value in the unit of `op_range`; same shape.

    Cutouts in "width fraction" are smaller at the image border.
    """
    match op_range.unit:
        case "half side":
            return 2 * value
        case "side":
            return 2 * (value // 2)
        case "side fraction":
            return np.floor(value * min(size) + 0.5)
        case _:
            return np.where(value > 0, np.trunc(value) + 1, 0)


def _round(value: Floats, op_range: Range) -> Floats:
    if op_range.rounding == "none":
        return value
    return np.trunc(value) if op_range.rounding == "truncate" else np.round(value)


def _linspace(start: float, end: float, count: int) -> Floats:
    """torch.linspace(start, end, count) in float32, as float64 [count]."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    position = np.arange(count)
    up, down = np.float64(first) + step * position, np.float64(last) - step * (count - 1 - position)
    return np.where(position < count // 2, up, down).astype(np.float32).astype(np.float64)
