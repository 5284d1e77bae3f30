"""Curves of an inspection as small figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdaug.inspection.measures import CurvePoint, Estimate, Measures
from kdaug.study.report.plotting import style_axes

Read = Callable[[Measures], Estimate]
LINES: dict[str, tuple[Read, str, str]] = {
    "probability of the label": (lambda m: m.label_prob, "#1d4ed8", "-"),
    "top-1 as unaugmented": (lambda m: m.agreement, "#15803d", "--"),
    "past recognition": (lambda m: m.past, "#b91c1c", "-."),
}
"""The measures from 0 to 1: how to read each, color, and line style (so that color is not needed)."""
ENTROPY_COLOR = "#7c3aed"
ENTROPY_LABEL = "entropy / ln C"


def curve_figure(title: str, points: Sequence[CurvePoint], classes: int, x_label: str, wide: bool = False) -> Figure:
    """The measures over level or magnitude with their 95 % intervals, all from 0 to 1.

    The entropy is divided by ln(classes), the largest possible one. wide: with a legend.
    """
    figure = Figure(figsize=(5.4, 3.8) if wide else (3.4, 2.5), layout="constrained")
    axes = figure.subplots()
    levels, largest = [point.level for point in points], math.log(max(classes, 2))
    for label, (read, color, style) in LINES.items():
        draw_estimates(axes, levels, [read(point.measures) for point in points], color, style, label)
    entropies = [point.measures.entropy for point in points]
    draw_estimates(axes, levels, entropies, ENTROPY_COLOR, ":", ENTROPY_LABEL, largest)
    axes.set_ylim(-0.03, 1.03)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x_label, fontsize=9)
    axes.tick_params(labelsize=8)
    style_axes(axes)
    if wide:
        figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def draw_estimates(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    color: str,
    style: str,
    label: str,
    unit: float = 1,
) -> None:
    """Draws a line of estimates / `unit` with the band of their intervals."""
    axes.plot(x, [each.value / unit for each in estimates], color=color, ls=style, marker="o", ms=2.5, label=label)
    low, high = [each.low / unit for each in estimates], [each.high / unit for each in estimates]
    axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
