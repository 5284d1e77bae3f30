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

MAX_CROP = 1 << 16
"""Largest side in pixels of a crop."""
FORMAT = 1
"""Version of the files that `ViewPlan.save` writes."""
_RECTANGLES = ("crop", "cutout", "erase")
_ARRAYS = ("op", "argument", "resample", "fill")
_SIZES = ("size", "output_size")


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
        _save(self, path)

    @staticmethod
    def load(path: str | Path) -> ViewPlan:
        """The plan that `save` wrote; InputError if the file is damaged or no plan."""
        return _load(path)


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


def parse_color(fill: int | Color) -> Color:
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
    color = parse_color(fill)
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


def check_plan(plan: ViewPlan) -> None:
    """Everything that the kernels rely on and do not test themselves; InputError naming what is wrong."""
    steps = plan.op.shape
    parts = {"op": (steps, "uint8"), "argument": ((*steps, ops.MAX_ARGUMENTS), "float64")}
    parts |= {"resample": (steps, "uint8"), "fill": ((*steps, 3), "uint8")}
    for name, (shape, dtype) in parts.items():
        part = getattr(plan, name)
        if len(steps) != 2 or part.shape != shape or part.dtype != dtype:
            raise InputError(f"the plan's {name} is {part.dtype} {list(part.shape)}, but must be {dtype} {list(shape)}")
    # Of all tests only these few are made for every batch: small calls of NumPy take as long as some images.
    counts = np.bincount(plan.op.ravel(), minlength=len(ops.NAMES))
    if len(counts) > len(ops.NAMES):
        raise InputError(f"the plan holds op code {len(counts) - 1}, which is unknown")
    if plan.resample.size and plan.resample.max() >= len(RESAMPLES):
        raise InputError(f"the plan holds resample code {plan.resample.max()}, which is unknown")
    if not np.isfinite(plan.argument).all():
        row, step, _ = np.argwhere(~np.isfinite(plan.argument))[0]
        raise InputError(f"image {row} of the plan: op {ops.NAMES[plan.op[row, step]]} has a non-finite argument")
    for name in _RECTANGLES:
        if counts[ops.CODES[name]]:
            _check_rectangles(plan, name)
    if counts[ops.CODES["crop"]] or plan.size != plan.output_size:
        _check_output_size(plan)


def _check_rectangles(plan: ViewPlan, name: str) -> None:
    count = len(ops.ARGUMENTS[name][0])
    at = np.argwhere(plan.op == ops.CODES[name])
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
    is_crop = plan.op == ops.CODES["crop"]
    ends = np.tile(np.array(plan.size, np.float64), (len(plan), 1))
    for step in np.flatnonzero(is_crop.any(axis=0)):
        rows = is_crop[:, step]
        ends[rows] = plan.argument[rows, step][:, [3, 2]]
        if (ends > MAX_CROP).any():
            row = np.flatnonzero((ends > MAX_CROP).any(axis=1))[0]
            raise InputError(f"image {row} of the plan: a crop of more than {MAX_CROP} pixels a side")
        if (ends < 0).any():
            raise InputError(f"image {np.flatnonzero((ends < 0).any(axis=1))[0]} of the plan: a crop of negative size")
    wrong = np.flatnonzero((ends != plan.output_size).any(axis=1))
    if len(wrong):
        height, width = ends[wrong[0]].astype(int).tolist()
        raise InputError(
            f"image {wrong[0]} of the plan ends with {(height, width)} pixels, but output_size is {plan.output_size}"
        )


def _save(plan: ViewPlan, path: str | Path) -> None:
    """Writes `plan` to `path`, compressed and without pickle; the names of all ops go with it."""
    with open(path, "wb") as file:
        np.savez_compressed(
            file,
            format=np.array(FORMAT),
            op_names=np.array(ops.NAMES),
            size=np.array(plan.size),
            output_size=np.array(plan.output_size),
            **{name: getattr(plan, name) for name in _ARRAYS},
        )


def _load(path: str | Path) -> ViewPlan:
    """The plan that was saved to `path`; it replays to the same bytes.

    Raises InputError if the file cannot be read, is no plan, holds arrays of other types or shapes, or ops,
    arguments, filters or sizes that there are not.
    """
    arrays = _read(path)

    def refuse(why: str) -> InputError:
        return InputError(f"plan {path}: {why}")

    wanted = {"format", "op_names", *_SIZES, *_ARRAYS}
    if set(arrays) != wanted:
        raise refuse(f"holds {', '.join(sorted(arrays)) or 'nothing'}, but a plan holds {', '.join(sorted(wanted))}")
    if arrays["format"].shape != () or arrays["format"] != FORMAT:
        raise refuse(f"is of format {arrays['format']}, this kdaug reads {FORMAT}")
    names = arrays["op_names"].tolist()
    if names != list(ops.NAMES[: len(names)]):
        raise refuse("was written with other ops than this kdaug has")
    for name in _SIZES:
        array = arrays[name]
        if array.shape != (2,) or array.dtype.kind != "i" or array.min() < 0:
            raise refuse(f"{name} is {array.tolist()}, but must be height and width")
    (height, width), (out_height, out_width) = (arrays[name].tolist() for name in _SIZES)
    plan = ViewPlan(
        **{name: arrays[name] for name in _ARRAYS}, size=(height, width), output_size=(out_height, out_width)
    )
    try:
        check_plan(plan)
    except InputError as error:
        raise refuse(str(error)) from None
    return plan


def _read(path: str | Path) -> dict[str, NDArray[Any]]:
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("not an npz file")
        with stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile, zlib and NumPy raise all kinds of them over a damaged file
        raise InputError(f"plan {path}: cannot be read ({error.__class__.__name__}: {error})") from None
