"""timm's policy strings, such as rand-m9-mstd0.5-inc1 and augmix-m3-w3: their parts, and the levels they draw.

The meaning of the parts is that of timm 1.0.31, timm/data/auto_augment.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kdaug.errors import InputError
from kdaug.rng import Words, uniform

Floats = NDArray[np.float64]
MAX_MAGNITUDE = 1000
MAX_LEVEL = 10
"""Levels are clamped to 0..MAX_LEVEL, unless the string has a part mmax."""
_UNIFORM_ABOVE = 100
_PART = re.compile(r"(?P<name>[a-z]+)(?P<value>\d+(?:\.\d+)?)", re.ASCII)


Parts = Mapping[str, tuple[type[int] | type[float], float, float] | None]
"""name -> (int or float, smallest, largest value); None for a part without a value."""


def read_parts(text: str, parts: Parts) -> dict[str, float]:
    """The values of the parts of `text` after its first word, by name; 1 for parts without a value.

    Raises InputError for a part that is unknown, repeated or out of range.
    """
    values: dict[str, float] = {}
    for part in text.split("-")[1:]:
        match = _PART.fullmatch(part)
        name = match["name"] if match else part
        if name not in parts or (match is None) != (parts[name] is None):
            known = ", ".join(name if limits is None else f"{name}#" for name, limits in parts.items())
            raise InputError(f"policy {text}: {part!r} is not a part of it", f"use {known} (#: a number, as in m9)")
        if name in values:
            raise InputError(f"policy {text} has the part {name} twice", "remove one")
        limits = parts[name]
        if match is None or limits is None:
            values[name] = 1
            continue
        kind, low, high = limits
        value = float(match["value"])
        if not low <= value <= high or (kind is int and value != int(value)):
            whole = "a whole number " if kind is int else ""
            raise InputError(f"policy {text}: {name} is {match['value']}, but must be {whole}from {low:g} to {high:g}")
        values[name] = value
    return values


def with_magnitude(text: str, magnitude: int) -> str:
    """The string `text` with part m replaced."""
    others = [part for part in text.split("-") if not (part[:1] == "m" and part[1:].isdigit())]
    return "-".join([*others, f"m{magnitude}"])


def noise_of(mstd: float) -> float:
    """The noise of RandAugment's part mstd: above 100 the levels are uniform, which is written as infinity."""
    return math.inf if mstd > _UNIFORM_ABOVE else mstd


def draw_levels(magnitude: float, noise: float, max_level: float, words: Words) -> Floats:
    """Levels float64 of the shape of `words`, clamped to 0..max_level.

    noise: standard deviation of a normal distribution around the magnitude; 0: the magnitude; infinity: uniform between
    0 and the magnitude.
    """
    if math.isinf(noise):
        levels = magnitude * uniform(words)
    elif noise:
        from scipy.special import ndtri  # scipy takes a while to import

        # float32, because the last bits of the quantile may depend on the processor
        levels = (magnitude + noise * ndtri(uniform(words))).astype(np.float32).astype(np.float64)
    else:
        levels = np.full(words.shape, float(magnitude))
    return levels.clip(0, max_level)


def describe_levels(magnitude: float, noise: float, max_level: float) -> str:
    """The distribution of the levels as text."""
    clamped = f", clamped to 0..{max_level:g}"
    if math.isinf(noise):
        return f"levels uniform in 0..{magnitude:g}{clamped if magnitude > max_level else ''}"
    if noise:
        return f"levels normal with mean {magnitude:g} and standard deviation {noise:g}{clamped}"
    return f"level {min(magnitude, max_level):g}"


def typical_levels(magnitude: float, noise: float, max_level: float) -> tuple[float, ...]:
    """One to three levels in increasing order that show the distribution of `draw_levels`."""
    around = (magnitude - noise, magnitude, magnitude + noise)
    levels = (0, magnitude / 2, magnitude) if math.isinf(noise) else around
    return tuple(sorted({float(min(max(level, 0), max_level)) for level in levels}))
