"""A plan in a file: the arrays of a ViewPlan in an npz, with the names of its ops, checked on the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.views import ops
from kdaug.views.plan import RESAMPLES, ViewPlan

FORMAT = 1
_ARRAYS = {
    # what stands in the file: (type, shape after [N, S], or the whole shape)
    "op": (np.uint8, ()),
    "argument": (np.float64, (ops.MAX_ARGUMENTS,)),
    "resample": (np.uint8, ()),
    "fill": (np.uint8, (3,)),
}
_SIZES = ("size", "output_size")


def save_plan(plan: ViewPlan, path: str | Path) -> None:
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


def load_plan(path: str | Path) -> ViewPlan:
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
    steps = arrays["op"].shape
    for name, (dtype, rest) in _ARRAYS.items():
        array = arrays[name]
        if array.dtype != dtype or array.ndim < 2 or array.shape != (*steps[:2], *rest):
            raise refuse(f"{name} is {array.dtype} {list(array.shape)}, which does not fit")
    for name in _SIZES:
        array = arrays[name]
        if array.shape != (2,) or array.dtype.kind != "i" or array.min() < 0:
            raise refuse(f"{name} is {array.tolist()}, but must be height and width")
    height, width = (int(side) for side in arrays["size"])
    plan = ViewPlan(**{name: arrays[name] for name in _ARRAYS}, size=(height, width), output_size=_output_size(arrays))
    try:
        _check_steps(plan, len(names))
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


def _output_size(arrays: dict[str, NDArray[Any]]) -> tuple[int, int]:
    height, width = (int(side) for side in arrays["output_size"])
    return height, width


def _check_steps(plan: ViewPlan, known_ops: int) -> None:
    """InputError for an op, an argument, a filter or an output size that does not make sense."""
    if plan.op.size and plan.op.max() >= known_ops:
        raise InputError(f"holds op code {plan.op.max()}, which is unknown")
    if plan.resample.size and plan.resample.max() >= len(RESAMPLES):
        raise InputError(f"holds resample code {plan.resample.max()}, which is unknown")
    if not np.isfinite(plan.argument).all():
        raise InputError("holds a non-finite argument")
    for code, name in enumerate(ops.NAMES):
        chosen = plan.argument[plan.op == code]
        labels = [label for kind in ops.ARGUMENTS[name] for label in kind]
        if name in ops.WHOLE and (chosen != np.trunc(chosen)).any():
            raise InputError(f"op {name} has an argument that is not a whole number")
        for label in ops.NON_NEGATIVE.get(name, ()):
            if (chosen[:, labels.index(label)] < 0).any():
                raise InputError(f"op {name} has a negative {label}")
    height, width = np.full(len(plan), plan.size[0]), np.full(len(plan), plan.size[1])
    for step in range(plan.op.shape[1]):
        cropped = plan.op[:, step] == ops.CODES["crop"]
        height = np.where(cropped, plan.argument[:, step, 3], height)
        width = np.where(cropped, plan.argument[:, step, 2], width)
    if (height != plan.output_size[0]).any() or (width != plan.output_size[1]).any():
        raise InputError(f"says it ends with {plan.output_size}, but its crops do not")
