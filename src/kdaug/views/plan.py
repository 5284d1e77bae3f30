"""A plan: for every image of a batch, which ops with which arguments. Drawn by a policy, carried out by `apply`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.views import ops

Resample = Literal["nearest", "bilinear", "bicubic"]
RESAMPLES: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic")
Size = tuple[int, int]
Color = tuple[int, int, int]


@dataclass(frozen=True)
class ViewPlan:
    """N images x S steps, carried out from the first step to the last.

    op: uint8 [N,S], codes of `kdaug.views.ops`; 0 does nothing.
    argument: float64 [N,S,4], the op's own arguments, unused ones 0.
    resample: uint8 [N,S], position in RESAMPLES; used by shear, translate and rotate.
    fill: uint8 [N,S,3], colour of what comes from outside the image (channel 0 for grey images).
    size, output_size: (height, width) in pixels before and after.
    """

    op: NDArray[np.uint8]
    argument: NDArray[np.float64]
    resample: NDArray[np.uint8]
    fill: NDArray[np.uint8]
    size: Size
    output_size: Size

    def __len__(self) -> int:
        return len(self.op)

    def __getitem__(self, rows: slice) -> ViewPlan:
        """The plan of a part of the batch."""
        return ViewPlan(
            self.op[rows], self.argument[rows], self.resample[rows], self.fill[rows], self.size, self.output_size
        )

    def steps(self, row: int) -> list[tuple[Any, ...]]:
        """The ops of image `row` as `plan_of` takes them, without those that do nothing: [("rotate", 30.0), ...]."""
        readable = []
        for code, argument in zip(self.op[row], self.argument[row], strict=True):
            if code:
                required, optional = ops.ARGUMENTS[ops.NAMES[code]]
                given = tuple(argument[: len(required) + len(optional)].tolist())
                readable.append((ops.NAMES[code], given[0] if len(given) == 1 else given)[: 1 + bool(given)])
        return readable

    def save(self, path: str | Path) -> None:
        """Writes the plan to an npz file, without pickle."""
        from kdaug.views.plan_file import save_plan

        save_plan(self, path)

    @staticmethod
    def load(path: str | Path) -> ViewPlan:
        """The plan that `save` wrote; InputError if the file is damaged or no plan."""
        from kdaug.views.plan_file import load_plan

        return load_plan(path)


def blank(count: int, steps: int, size: Size, fill: Color = (0, 0, 0), resample: Resample = "nearest") -> ViewPlan:
    """A plan of `steps` steps that do nothing to `count` images of `size`, for a policy to fill in."""
    return ViewPlan(
        op=np.zeros((count, steps), np.uint8),
        argument=np.zeros((count, steps, ops.MAX_ARGUMENTS)),
        resample=np.full((count, steps), RESAMPLES.index(resample), np.uint8),
        fill=np.broadcast_to(np.array(fill, np.uint8), (count, steps, 3)).copy(),
        size=size,
        output_size=size,
    )


def chain(plans: Sequence[ViewPlan]) -> ViewPlan:
    """One plan that carries out `plans` in turn: for the same images, each starting at the size the last ended with."""
    for before, after in pairwise(plans):
        if before.output_size != after.size or len(before) != len(after):
            raise InputError(f"plans do not follow each other: {before.output_size} is followed by {after.size}")
    return ViewPlan(
        op=np.concatenate([p.op for p in plans], axis=1),
        argument=np.concatenate([p.argument for p in plans], axis=1),
        resample=np.concatenate([p.resample for p in plans], axis=1),
        fill=np.concatenate([p.fill for p in plans], axis=1),
        size=plans[0].size,
        output_size=plans[-1].output_size,
    )


def color_of(fill: int | Color) -> Color:
    """`fill` (one value for all channels, or three) as three values; InputError if it is not that."""
    values = np.broadcast_to(np.asarray(fill), (3,)) if np.shape(fill) in ((), (3,)) else np.empty(0)
    if len(values) != 3 or values.dtype.kind not in "iu" or not all(0 <= value <= 255 for value in values):
        raise InputError(f"fill is {fill}, but must be 0..255, or three such values")
    return int(values[0]), int(values[1]), int(values[2])


def plan_of(
    ops_per_sample: Sequence[Sequence[tuple[Any, ...]]],
    size: Size,
    fill: int | Color = 0,
    resample: Resample = "nearest",
) -> ViewPlan:
    """The plan that does exactly `ops_per_sample` to images of `size` (height, width).

    One list per image, of (op,) or (op, argument) or (op, (argument, ...)): [[("rotate", 30.0)], [("invert",)]].
    A cutout takes the top-left corner and the side: ("cutout", (x, y, side)). `fill` is 0..255, or one such value per
    channel. Raises InputError for an unknown op, resample, or an argument that does not fit.
    """
    if resample not in RESAMPLES:
        raise InputError(f"resample is {resample!r}; there are {', '.join(RESAMPLES)}")
    if np.shape(size) != (2,) or any(side != int(side) or side < 1 for side in size):
        raise InputError(f"size is {size}, but must be height and width, whole numbers of at least 1")
    height, width = (int(side) for side in size)
    color = color_of(fill)
    longest = max((len(sample) for sample in ops_per_sample), default=0)
    plan = blank(len(ops_per_sample), longest, (height, width), color, resample)
    outputs = set()
    for row, sample in enumerate(ops_per_sample):
        output = (height, width)
        for step, op in enumerate(sample):
            if not op:
                raise InputError(f"image {row}: step {step} is empty; write (op,) or (op, argument)")
            name, *given = op
            values = given[0] if given and isinstance(given[0], tuple | list) else given
            plan.op[row, step] = ops.code_of(name)
            plan.argument[row, step] = ops.arguments_of(name, values)
            if name == "crop":
                output = (int(values[3]), int(values[2]))
        outputs.add(output)
    if len(outputs) > 1:
        raise InputError(f"all images of a batch must end with one size, but their crops end with {sorted(outputs)}")
    return ViewPlan(plan.op, plan.argument, plan.resample, plan.fill, plan.size, next(iter(outputs), plan.size))
