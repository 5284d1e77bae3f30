"""Figures of an evaluation: confusion matrix and reliability curve."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdaug.calibration import CalibrationBin
from kdaug.study.report.plotting import style_axes, to_svg

MAX_CLASSES = 1_000
"""A matrix of more classes has cells smaller than a pixel."""
_MOST_NUMBERED, _MOST_NAMED = 12, 40
"""Classes up to which each cell shows its number, and the axes name the classes."""
_LONGEST_NAME = 24
_PALE = 0.45
"""Share above which a cell is dark, so that its number is white."""


def confusion_figure(matrix: NDArray[np.int64], names: Sequence[str]) -> Figure:
    """The share of each label's images (row) by predicted class (column); `matrix` counts them, [C,C].

    Colors follow the square root of the share, so that rare confusions are visible. Up to 40 classes are named; more
    are numbered from 0.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    count = len(names)
    figure = Figure(figsize=(8, 7) if count <= _MOST_NUMBERED else (11, 10), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="none")
    figure.colorbar(picture, ax=axes, label="share of the label's images", shrink=0.8)
    number = "" if count <= _MOST_NAMED else ", number of the class"
    axes.set_xlabel(f"predicted class{number}")
    axes.set_ylabel(f"label{number}")
    if count <= _MOST_NAMED:
        axes.tick_params(labelsize=8)
        shown = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
        axes.set_xticks(range(count), shown, rotation=90, parse_math=False)
        axes.set_yticks(range(count), shown, parse_math=False)
    if count <= _MOST_NUMBERED:
        _write_counts(axes, matrix, share)
    return figure


def _write_counts(axes: Axes, matrix: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    for row, column in zip(*np.nonzero(matrix), strict=True):
        color = "white" if share[row, column] > _PALE else "black"
        axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=8, color=color)


def reliability_figure(bins: Sequence[CalibrationBin]) -> Figure:
    """Accuracy by confidence (above) and the share of the images in each bin (below), as in Guo et al. 2017, Figure 1.

    A calibrated network is as accurate as it is confident: its bars end on the diagonal.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    total = sum(each.images for each in bins)
    filled = [each for each in bins if each.images]
    left, width = [each.lower for each in filled], bins[0].upper - bins[0].lower
    bars = {"width": width, "align": "edge", "edgecolor": "white"}
    above.bar(left, [each.accuracy for each in filled], color="#1d4ed8", label="accuracy", **bars)
    above.plot([0, 1], [0, 1], color="#57534e", ls="--", lw=1, label="as accurate as confident")
    above.plot(
        [each.confidence for each in filled], [each.accuracy for each in filled], "o", color="#c2410c", ms=4,
        label="mean confidence of the bin",
    )  # fmt: skip
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.legend(frameon=False, fontsize=8, loc="upper left")
    below.bar(left, [each.images / total for each in filled], color="#a8a29e", **bars)
    below.set(xlabel="confidence: probability of the predicted class", ylabel="share of images")
    for axes in (above, below):
        style_axes(axes)
    return figure


def to_svg_with_names(figure: Figure) -> bytes:
    """As `to_svg`, with text as text: the browser has letters that matplotlib's font lacks."""
    with matplotlib.rc_context({"svg.fonttype": "none"}), warnings.catch_warnings(action="ignore"):
        return to_svg(figure)
