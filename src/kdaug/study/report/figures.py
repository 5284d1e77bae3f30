"""Figures of a comparison: training curves, and the error as a function of each numeric setting."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdaug.study.report.compare import Group, is_number
from kdaug.study.report.curves import Curve, curves_figure, views_figure
from kdaug.study.report.plotting import CaptionedFigure, add_legend, style_axes
from kdaug.study.report.tables import format_settings

_LINE_STYLES: tuple[Any, ...] = ("-", "--", "-.", (0, (6, 2, 1, 2, 1, 2)))
"""Without dotted lines, which are the training error and the weak views."""
_LINE_STYLE_NAMES = ("solid", "dashed", "dash-dotted", "dash-dot-dotted")


def comparison_figures(groups: Sequence[Group]) -> Iterator[CaptionedFigure]:
    """The training curves, those on the fixed views if they were measured, then one figure per numeric setting that
    varies while others are equal."""
    curves = group_curves(groups)
    yield CaptionedFigure("curves", "Training curves", _curves_caption(groups), curves_figure(curves))
    on_views = views_figure(curves)
    if on_views is not None:
        yield CaptionedFigure("views", "Measures on fixed augmented views", _VIEWS, on_views)
    for name in groups[0].varied:
        if _lines(name, groups):
            caption = _setting_caption(name, groups)
            yield CaptionedFigure(f"error-{name}", f"Error by {name}", caption, error_by_setting(name, groups))


_VIEWS = (
    "Of a fixed sample of augmented training images: the student's error and its expected calibration error; with a "
    "teacher, its agreement with the teacher on the third of these views that is augmented most, and dotted on the "
    "third that is augmented least. Colors and line styles as above. The table below has the final values, and "
    "the share of views past recognition: the label is not among the teacher's top K classes."
)


def _curves_caption(groups: Sequence[Group]) -> str:
    train_errors = (
        "; thin dotted lines: error on the training images"
        if any(group.train_error is not None for group in groups)
        else ""
    )
    return (
        "Left: cross-entropy on the training views. Right: error, with a point for each evaluation"
        f"{train_errors}.{_describe_styles(groups)}"
    )


def _setting_caption(name: str, groups: Sequence[Group]) -> str:
    numeric = [is_number(group.varied[name]) for group in groups]
    level = "" if all(numeric) else f" Horizontal lines: runs without a number for {name}."
    return f"Mean error of the final weights. Bars: standard deviation over seeds.{level}"


def group_curves(groups: Sequence[Group]) -> list[Curve]:
    """A curve for each group: means over its seeds."""
    return [
        Curve(_wrap(format_settings(group.varied)) or "all", [run.path for run in group.runs], style)
        for group, style in zip(groups, _styles(groups), strict=True)
    ]


def _styles(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Color and line style of each group.

    The setting with the most numeric values gives the color, from dark to light. All others together give the line
    style. Without a numeric setting, or with too few line styles, each group has its own color.
    """
    color_setting = _color_setting(groups)
    if color_setting is None:
        return [_distinct_style(index) for index in range(len(groups))]
    numbers, others = _numbers(color_setting, groups), list(_group_by_others(color_setting, groups))
    styles = list[dict[str, Any]]()
    for group in groups:
        number, label = group.varied[color_setting], _label_without(color_setting, group)
        color = colormaps["viridis"](0.9 * numbers.index(number) / (len(numbers) - 1)) if number in numbers else "gray"
        styles.append({"color": color, "ls": _LINE_STYLES[others.index(label)]})
    return styles


def _color_setting(groups: Sequence[Group]) -> str | None:
    """The setting that gives the color, None if each group has its own."""
    name = max(groups[0].varied, key=lambda name: len(_numbers(name, groups)), default=None)
    if name is None or len(_numbers(name, groups)) < 2 or len(_group_by_others(name, groups)) > len(_LINE_STYLES):
        return None
    return name


def _describe_styles(groups: Sequence[Group]) -> str:
    """What colors and line styles mean, as sentences that begin with a space."""
    color_setting = _color_setting(groups)
    if color_setting is None:
        return " The legend names the lines." if len(groups) > 1 else ""
    others = list(_group_by_others(color_setting, groups))
    color = f" Color: {color_setting}, from dark to light."
    if len(others) == 1:
        return color
    named = zip(_LINE_STYLE_NAMES, others, strict=False)
    lines = [f"{style}, {label or 'all other runs'}" for style, label in named]
    return f"{color} Lines: {'; '.join(lines)}."


def _distinct_style(index: int) -> dict[str, Any]:
    return {"color": f"C{index % 10}", "ls": _LINE_STYLES[index // 10 % len(_LINE_STYLES)]}


def _numbers(name: str, groups: Sequence[Group]) -> list[float]:
    """The numeric values of the setting `name`, without repetition, ascending."""
    return sorted({group.varied[name] for group in groups if is_number(group.varied[name])})


def _group_by_others(name: str, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Groups that are equal in all settings but `name`, by a label of those settings."""
    by_label = dict[str, list[Group]]()
    for group in groups:
        by_label.setdefault(_label_without(name, group), []).append(group)
    return by_label


def _lines(name: str, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The lines of the figure of setting `name`, by label: groups with at least two numeric values of it."""
    numeric = [group for group in groups if is_number(group.varied[name])]
    return {label: line for label, line in _group_by_others(name, numeric).items() if len(line) > 1}


def _label_without(name: str, group: Group) -> str:
    """The varied settings except `name`, as text."""
    return format_settings({other: value for other, value in group.varied.items() if other != name})


def _wrap(label: str) -> str:
    """The label in lines short enough for a legend next to the axes."""
    return textwrap.fill(label, 48)


def error_by_setting(name: str, groups: Sequence[Group]) -> Figure:
    """Mean error with standard deviation as a function of the setting `name`, as in the paper's Figure 4.

    There is one line per combination of the other settings. Groups without a numeric value, such as those without a
    teacher, are horizontal lines. A combination with one numeric value is not drawn.
    """
    lines = _lines(name, groups)
    constant = [group for group in groups if not is_number(group.varied[name])]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for index, (label, line) in enumerate(lines.items()):
        x, y = [group.varied[name] for group in line], [group.mean for group in line]
        deviations = [math.nan if group.deviation is None else group.deviation for group in line]
        axes.errorbar(x, y, deviations, marker="o", ms=4, capsize=2, label=_wrap(label), **_distinct_style(index))
    for index, group in enumerate(constant):
        label = _wrap(_label_without(name, group))
        axes.axhline(group.mean, ls=_LINE_STYLES[index % len(_LINE_STYLES)], lw=1, color="gray", label=label)
    _set_ticks(axes, _numbers(name, groups))
    axes.set_xlabel(name)
    axes.set_ylabel("error, %")
    style_axes(axes)
    if len(groups[0].varied) > 1:
        add_legend(figure, len(lines) + len(constant))
    return figure


def _set_ticks(axes: Axes, numbers: Sequence[float]) -> None:
    """A tick at each of up to 12 numbers. The axis is logarithmic if their ratio is above 8."""
    if numbers[0] > 0 and numbers[-1] / numbers[0] > 8:
        axes.set_xscale("log")
        axes.minorticks_off()
    if len(numbers) <= 12:
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
