"""A plan in a file: the arrays of a ViewPlan in an npz, with the names of its ops, checked on the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.views import ops
from kdaug.views.plan import ViewPlan
from kdaug.views.plan_check import check_plan

FORMAT = 1
_ARRAYS = ("op", "argument", "resample", "fill")
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
