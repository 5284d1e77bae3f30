"""Figures of a comparison: curves over the epochs, and the error against each setting that is a number."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdaug.study.comparison import Group, is_number
from kdaug.study.curves import cross_entropy_by_epoch, errors_by_epoch, plain_axes
from kdaug.study.tables import in_words

_MOST_LINES = 12
"""More cannot be told apart."""


def figures_of(groups: Sequence[Group]) -> Iterator[tuple[str, Figure]]:
    """Name and figure of each: the curves, then one for every setting of at least two numbers."""
    if len(groups) <= _MOST_LINES:
        yield "curves", curves(groups)
    for name in groups[0].varied:
        values = {group.varied[name] for group in groups if is_number(group.varied[name])}
        lines = _lines_against(name, groups)
        if len(values) > 1 and len(lines) <= _MOST_LINES:
            yield f"error-{name}", error_against(name, lines)


def curves(groups: Sequence[Group]) -> Figure:
    """Training loss and validation error against epochs, as in the paper's Figure 2; means over the seeds."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss, error = figure.subplots(1, 2)
    for group in groups:
        title = in_words(group.varied) or "all"
        epochs, values = _means([cross_entropy_by_epoch(run.path) for run in group.runs])
        loss.plot(epochs, values, label=title)
        epochs, values = _means([errors_by_epoch(run.path) for run in group.runs])
        error.plot(epochs, values, "o-", ms=3, label=title)
    loss.set_ylabel("cross-entropy on the training views, nats")
    error.set_ylabel("error, %")
    for axes in (loss, error):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain_axes(axes)
    error.legend(frameon=False, fontsize=8)
    return figure


def _means(runs: Sequence[dict[int, float]]) -> tuple[list[int], list[float]]:
    """Over the runs, at the epochs that all have."""
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    return epochs, [statistics.fmean(run[epoch] for run in runs) for epoch in epochs]


def _lines_against(name: str, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The groups of each line: those that agree in all but `name`, in its order."""
    lines = dict[str, list[Group]]()
    for group in groups:
        others = {other: value for other, value in group.varied.items() if other != name}
        lines.setdefault(in_words(others), []).append(group)
    return lines


def error_against(name: str, lines: dict[str, list[Group]]) -> Figure:
    """Mean error, with its standard deviation, against the setting `name`, as in Figure 4; one line for all else."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for title, groups in lines.items():
        there = [group for group in groups if is_number(group.varied[name])]
        if there:
            x, y = [group.varied[name] for group in there], [group.mean for group in there]
            axes.errorbar(x, y, [group.deviation or 0.0 for group in there], fmt="o-", ms=4, capsize=2, label=title)
        for group in groups:
            if not is_number(group.varied[name]):
                axes.axhline(group.mean, ls="--", lw=1, color="grey", label=title)
    axes.set_xlabel(name)
    axes.set_ylabel("error, %")
    plain_axes(axes)
    if any(lines):
        axes.legend(frameon=False, fontsize=8)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """NAME.svg and NAME.pdf, the same bytes for the same figures."""
    with matplotlib.rc_context({"svg.hashsalt": "kdaug"}):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
