"""Figures of a comparison: curves over the epochs, and the error against each setting that is a number."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdaug.study.report.compare import Group, is_number
from kdaug.study.report.curves import cross_entropy_by_epoch, errors_by_epoch, style_axes
from kdaug.study.report.tables import format_settings

_STYLES = ("-", "--", ":", "-.")
_MOST_NAMED = 24
"""More lines than that have no legend beside them, which would be longer than the figure."""


def figures_of(groups: Sequence[Group]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each: the curves, then one for every setting that varies, in numbers, while all else stays."""
    yield "curves", curves(groups)
    for name in groups[0].varied:
        if _drawn_against(name, groups):
            yield f"error-{name}", error_against(name, groups)


def _numbers(name: str, groups: Sequence[Group]) -> list[float]:
    """The numbers among the values of the setting `name`, each once, by size."""
    return sorted({group.varied[name] for group in groups if is_number(group.varied[name])})


def curves(groups: Sequence[Group]) -> Figure:
    """Training loss and validation error against epochs, as in the paper's Figure 2; means over the seeds."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for group, look in zip(groups, _looks(groups), strict=True):
        title = _wrapped(format_settings(group.varied)) or "all"
        epochs, values = _means([cross_entropy_by_epoch(run.path) for run in group.runs])
        loss.plot(epochs, values, "o", ms=3, **look)
        epochs, values = _means([errors_by_epoch(run.path) for run in group.runs])
        error.plot(epochs, values, "o", ms=3, label=title, **look)
    loss.set_ylabel("cross-entropy on the training views, nats")
    error.set_ylabel("error, %")
    for axes in (loss, error):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style_axes(axes)
    _name_lines(figure, len(groups))
    return figure


def _looks(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Colour and style of each group's line. The setting with the most numbers gives the colour, from dark to light;
    what else varies the style. Without one, or with more to vary than there are styles, each group has its own colour.
    """
    by_size = max(groups[0].varied, key=lambda name: len(_numbers(name, groups)), default=None)
    numbers = _numbers(by_size, groups) if by_size else []
    kinds = list(_lines_against(by_size, groups)) if by_size else []
    if by_size is None or len(numbers) < 2 or len(kinds) > len(_STYLES):
        return [_own_look(place) for place in range(len(groups))]
    looks = list[dict[str, Any]]()
    for group in groups:
        number, kind = group.varied[by_size], _kind(by_size, group)
        color = colormaps["viridis"](0.9 * numbers.index(number) / (len(numbers) - 1)) if number in numbers else "grey"
        looks.append({"color": color, "ls": _STYLES[kinds.index(kind)]})
    return looks


def _own_look(place: int) -> dict[str, Any]:
    return {"color": f"C{place % 10}", "ls": _STYLES[place // 10 % len(_STYLES)]}


def _name_lines(figure: Figure, lines: int) -> None:
    """A legend beside the axes."""
    if lines <= _MOST_NAMED:
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    else:
        figure.suptitle(f"{lines} lines, by name in the tables", fontsize=8)


def _means(runs: Sequence[dict[int, float]]) -> tuple[list[int], list[float]]:
    """Over the runs, at the epochs that all have."""
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    return epochs, [statistics.fmean(run[epoch] for run in runs) for epoch in epochs]


def _lines_against(name: str, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each line: those that agree in all but `name`, in its order."""
    lines = dict[str, list[Group]]()
    for group in groups:
        lines.setdefault(_kind(name, group), []).append(group)
    return lines


def _drawn_against(name: str, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Those of the lines that have at least two numbers."""
    numbered = [group for group in groups if is_number(group.varied[name])]
    return {title: line for title, line in _lines_against(name, numbered).items() if len(line) > 1}


def _wrapped(title: str) -> str:
    """In lines that leave room for the axes beside them."""
    return textwrap.fill(title, 48)


def _kind(name: str, group: Group) -> str:
    """What varies but for `name`, in words."""
    return format_settings({other: value for other, value in group.varied.items() if other != name})


def error_against(name: str, groups: Sequence[Group]) -> Figure:
    """Mean error, with its standard deviation, against the setting `name`, as in Figure 4; one line for all else.

    Groups in which `name` is no number, such as those without a teacher, are level lines. One number alone makes no
    line; it is left to the figures of the other settings.
    """
    drawn = _drawn_against(name, groups)
    level = [group for group in groups if not is_number(group.varied[name])]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for place, (title, line) in enumerate(drawn.items()):
        x, y = [group.varied[name] for group in line], [group.mean for group in line]
        spread = [math.nan if group.deviation is None else group.deviation for group in line]
        axes.errorbar(x, y, spread, marker="o", ms=4, capsize=2, label=_wrapped(title), **_own_look(place))
    for place, group in enumerate(level):
        label = _wrapped(_kind(name, group))
        axes.axhline(group.mean, ls=_STYLES[place % len(_STYLES)], lw=1, color="grey", label=label)
    _place_numbers(axes, _numbers(name, groups))
    axes.set_xlabel(name)
    axes.set_ylabel("error, %")
    style_axes(axes)
    if len(groups[0].varied) > 1:
        _name_lines(figure, len(drawn) + len(level))
    return figure


def _place_numbers(axes: Axes, numbers: Sequence[float]) -> None:
    """Ticks at the numbers, if they are few; a logarithmic axis if they are far apart."""
    if numbers[0] > 0 and numbers[-1] / numbers[0] > 8:
        axes.set_xscale("log")
        axes.minorticks_off()
    if len(numbers) <= 12:
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """NAME.svg and NAME.pdf, the same bytes for the same figures."""
    with matplotlib.rc_context({"svg.hashsalt": "kdaug"}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
