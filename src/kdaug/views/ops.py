"""The operations: their names, codes and arguments. What they do to pixels is in `kernels`.

An argument is the op's own: degrees counter-clockwise as in Pillow; shear factor and pixels as Pillow's affine
coefficients (source x = x + factor * y + offset, source x = x + pixels); corners and sides in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdaug.errors import InputError, nearest

MAX_ARGUMENTS = 4

# name -> (required, optional) arguments. The order is the code in stored plans: append, never reorder.
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

WHOLE = frozenset({"posterize", "cutout", "crop", "erase"})
"""Ops whose arguments must be whole numbers."""
NON_NEGATIVE = {
    "posterize": ("bits",),
    "cutout": ("side",),
    "crop": ("width", "height"),
    "erase": ("width", "height"),
}


def code_of(name: str) -> int:
    """The code of op `name`; InputError with the nearest name if there is none."""
    if name not in CODES:
        raise InputError(f"there is no op {name!r}{nearest(str(name), list(NAMES))}")
    return CODES[name]


def arguments_of(name: str, given: Sequence[float]) -> list[float]:
    """`given` as the MAX_ARGUMENTS floats of a plan, unused ones zero; InputError if they do not fit op `name`."""
    required, optional = ARGUMENTS[name]
    if not len(required) <= len(given) <= len(required) + len(optional):
        wanted = ", ".join([*required, *(f"[{o}]" for o in optional)]) or "no argument"
        raise InputError(f"op {name} takes {wanted}; got {len(given)} value(s)")
    for label, value in zip([*required, *optional], given, strict=False):
        if not isinstance(value, int | float | np.number):
            raise InputError(f"op {name}: {label} is {value!r}, but must be a number")
        if not np.isfinite(value):
            raise InputError(f"op {name}: {label} is {value}, but must be finite")
        if name in WHOLE and value != int(value):
            raise InputError(f"op {name}: {label} is {value}, but must be a whole number")
        if label in NON_NEGATIVE.get(name, ()) and value < 0:
            raise InputError(f"op {name}: {label} is {value}, but must not be negative")
    return [float(value) for value in given] + [0.0] * (MAX_ARGUMENTS - len(given))
