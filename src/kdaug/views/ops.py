"""The image ops: names, codes and arguments. `kdaug.views.kernels` implements them.

Units of the arguments: degrees are counter-clockwise, as in Pillow. Shear factor and pixels are Pillow's affine
coefficients: source x = x + factor * y + offset, source x = x + pixels. Corners and sides are in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdaug.errors import InputError, unknown_choice

MAX_ARGUMENTS = 4

# name -> (required, optional) arguments. The position is the code in plan files: append, never reorder.
ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "none": ((), ()),
    "shear-x": (("factor",), ("offset",)),
    "shear-y": (("factor",), ("offset",)),
    "translate-x": (("pixels",), ()),
    "translate-y": (("pixels",), ()),
    "rotate": (("degrees",), ()),
    "autocontrast": ((), ()),
    "invert": ((), ()),
    "equalize": ((), ()),
    "solarize": (("threshold",), ()),
    "posterize": (("bits",), ()),
    "contrast": (("factor",), ()),
    "color": (("factor",), ()),
    "brightness": (("factor",), ()),
    "sharpness": (("factor",), ()),
    "cutout": (("x", "y", "side"), ()),
    "solarize-add": (("addition",), ()),
    "flip": ((), ()),
    "crop": (("left", "top", "width", "height"), ()),
    "erase": (("x", "y", "width", "height"), ()),
}
NAMES = tuple(ARGUMENTS)
CODES = {name: code for code, name in enumerate(NAMES)}

INTEGER_OPS = frozenset({"posterize", "cutout", "crop", "erase"})
"""Ops whose arguments must be whole numbers."""
NON_NEGATIVE = {"posterize": ("bits",), "cutout": ("side",), "crop": ("width", "height"), "erase": ("width", "height")}


def code_of(name: str) -> int:
    """The code of op `name`. Raises InputError with the nearest name for an unknown op."""
    if name not in CODES:
        raise unknown_choice("op", name, NAMES)
    return CODES[name]


def arguments_of(name: str, values: Sequence[float]) -> list[float]:
    """The arguments `values` of op `name` as in a plan: MAX_ARGUMENTS floats, unused ones 0.

    Raises InputError for a wrong number of values, and for values that are no finite numbers or out of range.
    """
    required, optional = ARGUMENTS[name]
    if not len(required) <= len(values) <= len(required) + len(optional):
        expected = ", ".join([*required, *(f"[{o}]" for o in optional)]) or "no argument"
        raise InputError(f"op {name} takes {expected}; got {len(values)} value(s)")
    for label, value in zip([*required, *optional], values, strict=False):
        if not isinstance(value, int | float | np.number):
            raise InputError(f"op {name}: {label} is {value!r}, but must be a number")
        if not np.isfinite(value):
            raise InputError(f"op {name}: {label} is {value}, but must be finite")
        if name in INTEGER_OPS and value != int(value):
            raise InputError(f"op {name}: {label} is {value}, but must be a whole number")
        if label in NON_NEGATIVE.get(name, ()) and value < 0:
            raise InputError(f"op {name}: {label} is {value}, but must not be negative")
    return [float(value) for value in values] + [0.0] * (MAX_ARGUMENTS - len(values))
