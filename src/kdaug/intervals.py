"""95 % confidence intervals of shares, and of the difference of two shares that were measured on the same images."""

from __future__ import annotations

import math

Z = 1.959963984540054
"""The 97.5 % quantile of the normal distribution."""
Interval = tuple[float, float]


def wilson_interval(share: float, count: float) -> Interval:
    """Wilson's 95 % interval of a share among `count` independent values (E. B. Wilson, JASA 1927)."""
    center = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return max(0.0, center - half), min(1.0, center + half)


def paired_interval(first_only: int, second_only: int, count: int) -> Interval:
    """The 95 % interval of the difference of two shares, first minus second, of the same `count` images.

    first_only, second_only: how many images count for one share and not for the other; only these matter, as in
    McNemar's test. The adjusted Wald interval of Bonett and Price (J. Educ. Behav. Stat. 2012), which adds one image to
    each of the two numbers: its coverage is close to 95 % for small counts too.
    """
    first, second = (first_only + 1) / (count + 2), (second_only + 1) / (count + 2)
    difference = first - second
    half = Z * math.sqrt((first + second - difference**2) / (count + 2))
    return max(-1.0, difference - half), min(1.0, difference + half)
