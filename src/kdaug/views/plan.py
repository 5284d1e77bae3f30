"""View plans: which ops with which arguments each image of a batch gets. A policy draws a plan, `apply` executes it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.views import ops
from kdaug.views.chains import BLENDS, ChainMix, check_chain_mix

Resample = Literal["nearest", "bilinear", "bicubic"]
RESAMPLES: tuple[Resample, ...] = ("nearest", "bilinear", "bicubic")
Size = tuple[int, int]
"""(height, width) in pixels."""
Color = tuple[int, int, int]
"""0..255 per channel."""

MAX_CROP = 1 << 16
"""Largest side of a crop in pixels."""
_FILE_FORMAT, _CHAINS_FILE_FORMAT = 1, 2  # without and with chains
_FILE_SIZES = ("size", "output_size")
_ARRAYS = ("op", "argument", "resample", "fill")
_FILE_NAMES = {"format", "op_names", *_FILE_SIZES, *_ARRAYS}
_CHAINS_NAMES = {"chains_layout", "chains_weight", "chains_share"}


@dataclass(frozen=True)
class ViewPlan:
    """The ops of N images in S steps, applied from the first step to the last.

    op: uint8 [N,S], codes of `kdaug.views.ops`; 0 does nothing.
    argument: float64 [N,S,4], the arguments of each op, unused ones 0.
    resample: uint8 [N,S], index into RESAMPLES; used by shear, translate and rotate.
    fill: uint8 [N,S,3], color of pixels from outside the image (gray images use channel 0).
    size, output_size: (height, width) in pixels before and after all steps.
    chain_mix: the steps that are parallel chains (AugMix); None: all steps follow one another.
    """

    op: NDArray[np.uint8]
    argument: NDArray[np.float64]
    resample: NDArray[np.uint8]
    fill: NDArray[np.uint8]
    size: Size
    output_size: Size
    chain_mix: ChainMix | None = None

    def __len__(self) -> int:
        return len(self.op)

    def __getitem__(self, rows: slice) -> ViewPlan:
        """The plan of some images of the batch."""
        mix = None if self.chain_mix is None else self.chain_mix[rows]
        return replace(self, **{name: getattr(self, name)[rows] for name in _ARRAYS}, chain_mix=mix)

    def split(self) -> tuple[ViewPlan, list[ViewPlan], ViewPlan]:
        """The plans of the steps before the chains, of each chain, and of the steps after. Needs a `chain_mix`."""
        mix = self.chain_mix
        assert mix is not None
        starts = range(mix.first, mix.stop, mix.depth) if mix.depth else [mix.first] * mix.width
        chains = [self._columns(start, start + mix.depth, mix.size, mix.size) for start in starts]
        before = self._columns(0, mix.first, self.size, mix.size)
        return before, chains, self._columns(mix.stop, self.op.shape[1], mix.size, self.output_size)

    def _columns(self, start: int, stop: int, size: Size, output_size: Size) -> ViewPlan:
        arrays = {name: getattr(self, name)[:, start:stop] for name in _ARRAYS}
        return ViewPlan(**arrays, size=size, output_size=output_size)

    def steps(self, row: int) -> list[tuple[Any, ...]]:
        """The steps of image `row` in the form that `plan_of` takes, without ops "none": [("rotate", 30.0), ...].

        Chains are one step ("augmix", ((weight in the view, steps), ...)), which `plan_of` does not take.
        """
        if self.chain_mix is not None:
            before, chains, after = self.split()
            weights = self.chain_mix.view_weights()[row].tolist()
            mixed = tuple((weight, tuple(chain.steps(row))) for weight, chain in zip(weights, chains, strict=True))
            return [*before.steps(row), ("augmix", mixed), *after.steps(row)]
        steps: list[tuple[Any, ...]] = []
        for code, argument in zip(self.op[row], self.argument[row], strict=True):
            name = ops.NAMES[code]
            required, optional = ops.ARGUMENTS[name]
            values = tuple(argument[: len(required) + len(optional)].tolist())
            if len(values) > 1:
                steps.append((name, values))
            elif code:
                steps.append((name, *values))
        return steps

    def save(self, path: str | Path) -> None:
        """Writes the plan to `path`: a compressed npz file without pickle, with the names of all ops."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        if self.chain_mix is not None:
            arrays |= _chains_to_arrays(self.chain_mix)
        with open(path, "wb") as file:
            np.savez_compressed(
                file,
                format=np.array(_FILE_FORMAT if self.chain_mix is None else _CHAINS_FILE_FORMAT),
                op_names=np.array(ops.NAMES),
                size=np.array(self.size),
                output_size=np.array(self.output_size),
                **arrays,
            )

    @staticmethod
    def load(path: str | Path) -> ViewPlan:
        """Reads a plan that `save` wrote. Raises InputError if the file cannot be read or is not a valid plan."""
        try:
            return _plan_from_arrays(_read_arrays(path))
        except InputError as error:
            raise InputError(f"plan {path}: {error.problem}", error.hint) from None


def plan_of(
    ops_per_sample: Sequence[Sequence[tuple[Any, ...]]],
    size: Size,
    fill: int | Color = 0,
    resample: Resample = "nearest",
) -> ViewPlan:
    """A plan with the given ops, without random draws.

    ops_per_sample: one list of steps per image. A step is (op,), (op, argument) or (op, (argument, ...)), as in
    [[("rotate", 30.0)], [("invert",), ("cutout", (x, y, side))]]; `kdaug.views.ops` lists ops and arguments.
    size: (height, width) of the images in pixels. fill: 0..255, or three such values.

    Raises InputError for an unknown op or resample, for an argument, fill or size out of range, and if the crops give
    images of different sizes.
    """
    if resample not in RESAMPLES:
        raise InputError(f"resample is {resample!r}, but must be one of {', '.join(RESAMPLES)}")
    if np.shape(size) != (2,) or any(side != int(side) or side < 1 for side in size):
        raise InputError(f"size is {size}, but must be height and width, whole numbers of at least 1")
    size = int(size[0]), int(size[1])
    longest = max((len(steps) for steps in ops_per_sample), default=0)
    plan = empty_plan(len(ops_per_sample), longest, size, parse_color(fill), resample)
    output_sizes = set()
    for row, steps in enumerate(ops_per_sample):
        output_size = size
        for column, step in enumerate(steps):
            if not step:
                raise InputError(f"image {row}: step {column} is empty", "write (op,) or (op, argument)")
            name: str = step[0]
            if name == "augmix":
                raise InputError("plan_of takes no chains of AugMix", "use create_policy, or ViewPlan.load for a file")
            values: Sequence[Any] = step[1:]
            if values and isinstance(values[0], tuple | list):
                values = values[0]
            plan.op[row, column] = ops.code_of(name)
            plan.argument[row, column] = ops.arguments_of(name, values)
            if name == "crop":
                output_size = int(values[3]), int(values[2])
        output_sizes.add(output_size)
    if len(output_sizes) > 1:
        raise InputError(f"all images of a batch must end with one size, but their crops give {sorted(output_sizes)}")
    return replace(plan, output_size=next(iter(output_sizes), size))


def empty_plan(count: int, steps: int, size: Size, fill: Color = (0, 0, 0), resample: Resample = "nearest") -> ViewPlan:
    """A plan of `steps` ops "none" for `count` images of `size`; its arrays may be written to."""
    return ViewPlan(
        op=np.zeros((count, steps), np.uint8),
        argument=np.zeros((count, steps, ops.MAX_ARGUMENTS)),
        resample=np.full((count, steps), RESAMPLES.index(resample), np.uint8),
        fill=np.broadcast_to(np.array(fill, np.uint8), (count, steps, 3)).copy(),
        size=size,
        output_size=size,
    )


def concat_plans(plans: Sequence[ViewPlan]) -> ViewPlan:
    """One plan with the steps of all `plans` in order; all are for the same images.

    Raises InputError if a plan's size is not the output size of the plan before, or two of them have chains.
    """
    for previous, plan in pairwise(plans):
        if previous.output_size != plan.size or len(previous) != len(plan):
            sizes = f"{len(previous)} images of {previous.output_size}, then {len(plan)} of {plan.size} pixels"
            raise InputError(f"plans do not fit: {sizes}")
    arrays = {name: np.concatenate([getattr(plan, name) for plan in plans], axis=1) for name in _ARRAYS}
    mixes = [
        replace(plan.chain_mix, first=plan.chain_mix.first + sum(earlier.op.shape[1] for earlier in plans[:position]))
        for position, plan in enumerate(plans)
        if plan.chain_mix is not None
    ]
    if len(mixes) > 1:
        raise InputError("a plan can have the chains of one AugMix only", "apply the plans one after another")
    mix = mixes[0] if mixes else None
    return ViewPlan(**arrays, size=plans[0].size, output_size=plans[-1].output_size, chain_mix=mix)


def parse_color(fill: int | Color) -> Color:
    """Three values 0..255 from one value or three. Raises InputError for anything else."""
    values = np.broadcast_to(np.asarray(fill), (3,)) if np.shape(fill) in ((), (3,)) else np.empty(0)
    if len(values) != 3 or values.dtype.kind not in "iu" or not all(0 <= value <= 255 for value in values):
        raise InputError(f"fill is {fill}, but must be 0..255, or three such values")
    return int(values[0]), int(values[1]), int(values[2])


def check_plan(plan: ViewPlan) -> None:
    """Checks everything that the kernels rely on and do not check themselves.

    Raises InputError for wrong shapes or dtypes, unknown op or resample codes, non-finite arguments, rectangles that
    are not in whole pixels, crops of a negative size or above MAX_CROP, a wrong output_size, and chains that do not fit
    the plan.
    """
    _check_arrays(plan)
    if plan.chain_mix is not None:
        check_chain_mix(plan.chain_mix, *plan.op.shape)
        before, chains, after = plan.split()
        for part in (before, *chains, after):
            check_plan(part)
        return
    # This runs for every batch, and NumPy calls on small arrays take as long as some images: so there are few.
    counts = np.bincount(plan.op.ravel(), minlength=len(ops.NAMES))
    if len(counts) > len(ops.NAMES):
        raise InputError(f"the plan has op code {len(counts) - 1}, which is unknown")
    if plan.resample.size and plan.resample.max() >= len(RESAMPLES):
        raise InputError(f"the plan has resample code {plan.resample.max()}, which is unknown")
    if not np.isfinite(plan.argument).all():
        row, step, _ = np.argwhere(~np.isfinite(plan.argument))[0]
        raise InputError(f"image {row} of the plan: op {ops.NAMES[plan.op[row, step]]} has a non-finite argument")
    for name in ("crop", "cutout", "erase"):
        if counts[ops.CODES[name]]:
            _check_rectangles(plan, name)
    if counts[ops.CODES["crop"]] or plan.size != plan.output_size:
        _check_output_size(plan)


def _check_arrays(plan: ViewPlan) -> None:
    """Checks the shapes and dtypes of all arrays."""
    steps = plan.op.shape
    expected = {"op": (steps, "uint8"), "argument": ((*steps, ops.MAX_ARGUMENTS), "float64")}
    expected |= {"resample": (steps, "uint8"), "fill": ((*steps, 3), "uint8")}
    for name, (shape, dtype) in expected.items():
        array = getattr(plan, name)
        if len(steps) != 2 or array.shape != shape or array.dtype != dtype:
            raise InputError(
                f"the plan's {name} is {array.dtype} {list(array.shape)}, but must be {dtype} {list(shape)}"
            )


def _check_rectangles(plan: ViewPlan, name: str) -> None:
    """Checks that all arguments of op `name` are integers of 64 bits."""
    count = len(ops.ARGUMENTS[name][0])
    positions = np.argwhere(plan.op == ops.CODES[name])
    arguments = plan.argument[positions[:, 0], positions[:, 1], :count]
    wrong = (arguments != np.trunc(arguments)) | (abs(arguments) >= 2.0**63)
    if wrong.any():
        first = np.flatnonzero(wrong.any(axis=1))[0]
        raise InputError(
            f"image {positions[first, 0]} of the plan: op {name} has arguments {arguments[first].tolist()}, "
            "but they must be whole numbers of 64 bits"
        )


def _check_output_size(plan: ViewPlan) -> None:
    """Checks that every image ends with the plan's output size: that of its last crop, or its own size."""
    is_crop = plan.op == ops.CODES["crop"]
    sizes = np.tile(np.array(plan.size, np.float64), (len(plan), 1))
    for step in np.flatnonzero(is_crop.any(axis=0)):
        rows = is_crop[:, step]
        sizes[rows] = plan.argument[rows, step][:, [3, 2]]
        for wrong, problem in (
            (sizes > MAX_CROP, f"a crop of more than {MAX_CROP} pixels a side"),
            (sizes < 0, "a crop of negative size"),
        ):
            if wrong.any():
                raise InputError(f"image {np.flatnonzero(wrong.any(axis=1))[0]} of the plan: {problem}")
    different = np.flatnonzero((sizes != plan.output_size).any(axis=1))
    if len(different):
        height, width = sizes[different[0]].astype(int).tolist()
        raise InputError(
            f"image {different[0]} of the plan ends with {(height, width)} pixels, "
            f"but output_size is {plan.output_size}"
        )


def _chains_to_arrays(mix: ChainMix) -> dict[str, NDArray[Any]]:
    """The arrays of a plan file that hold the chains."""
    layout = np.array([mix.first, mix.depth, *mix.size, BLENDS.index(mix.blend)])
    return {"chains_layout": layout, "chains_weight": mix.weight, "chains_share": mix.share}


def _chains_from_arrays(arrays: dict[str, NDArray[Any]]) -> ChainMix:
    layout, weight, share = (arrays[name] for name in ("chains_layout", "chains_weight", "chains_share"))
    if layout.shape != (5,) or layout.dtype.kind != "i" or layout.min() < 0 or layout[4] >= len(BLENDS):
        raise InputError(f"chains_layout is {layout.tolist()}, but must be first, depth, height, width and blend")
    if weight.ndim != 2:
        raise InputError(f"chains_weight has the shape {list(weight.shape)}, but must be [images, chains]")
    first, depth, height, width, blend = layout.tolist()
    return ChainMix(first, depth, weight, share, (height, width), BLENDS[blend])


def _read_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file by name."""
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("not an npz file")
        with file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for a damaged file
        raise InputError(f"cannot be read ({error.__class__.__name__}: {error})") from None


def _plan_from_arrays(arrays: dict[str, NDArray[Any]]) -> ViewPlan:
    """The plan in the arrays of a plan file, checked."""
    has_chains = bool(set(arrays) & _CHAINS_NAMES)
    expected_names = _FILE_NAMES | (_CHAINS_NAMES if has_chains else set())
    expected_format = _CHAINS_FILE_FORMAT if has_chains else _FILE_FORMAT
    if set(arrays) != expected_names:
        names = ", ".join(sorted(arrays)) or "no arrays"
        raise InputError(f"the file has {names}, but a plan has {', '.join(sorted(expected_names))}")
    if arrays["format"].shape != () or arrays["format"] != expected_format:
        raise InputError(f"the format is {arrays['format']}, but this version of kdaug reads format {expected_format}")
    op_names = arrays["op_names"].tolist()
    if op_names != list(ops.NAMES[: len(op_names)]):
        raise InputError("the file was written by a version of kdaug with other ops")
    for name in _FILE_SIZES:
        array = arrays[name]
        if array.shape != (2,) or array.dtype.kind != "i" or array.min() < 0:
            raise InputError(f"{name} is {array.tolist()}, but must be height and width")
    (height, width), (out_height, out_width) = (arrays[name].tolist() for name in _FILE_SIZES)
    plan = ViewPlan(
        **{name: arrays[name] for name in _ARRAYS},
        size=(height, width),
        output_size=(out_height, out_width),
        chain_mix=_chains_from_arrays(arrays) if has_chains else None,
    )
    check_plan(plan)
    return plan
