"""Training curves: the cross-entropy, the errors and the measures on fixed views of runs over epochs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdaug.runs import read_metrics
from kdaug.study.report.plotting import add_legend, style_axes

_MAX_TICKS = 12
_STRONG, _WEAK = "view_agreement_strong", "view_agreement_weak"
_VIEWS = {
    "view_error": "error on the fixed views, %",
    "view_calibration_error": "calibration error on them, %",
    _STRONG: "agreement with the teacher, % (dotted: weak views)",
    _WEAK: "",
}
"""Measures in the figure of the fixed views, and labels of their axes; the last is drawn in the panel before it."""


@dataclass(frozen=True)
class Curve:
    """A line of the figure: the mean over `runs`, which are directories. style: arguments of matplotlib's plot()."""

    label: str
    runs: Sequence[Path]
    style: Mapping[str, Any]


def curves_figure(curves: Sequence[Curve], stacked: bool = False) -> Figure:
    """Training cross-entropy (left) and validation error (right) over epochs, as in the paper's Figure 2.

    stacked: the second below the first, for narrow pages. Thin dotted lines in the second: the error on the training
    images, for runs that measured it (run.evaluate_train).
    """
    figure = Figure(figsize=(6, 7) if stacked else (12, 4.5), layout="constrained")
    loss, error = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    for curve in curves:
        epochs, values = _mean([cross_entropy_by_epoch(run) for run in curve.runs])
        loss.plot(epochs, values, marker="o", ms=3, **curve.style)
        epochs, values = _mean([errors_by_epoch(run) for run in curve.runs])
        error.plot(epochs, values, marker="o", ms=3, label=curve.label, **curve.style)
        epochs, values = _mean([errors_by_epoch(run, "train_error") for run in curve.runs])
        if epochs:
            error.plot(epochs, values, **{**curve.style, "ls": ":", "lw": 1})
    loss.set_ylabel("cross-entropy on the training views, nats")
    error.set_ylabel("error, %")
    _finish_figure(figure, curves, stacked)
    return figure


def views_figure(curves: Sequence[Curve]) -> Figure | None:
    """Of the fixed views over epochs: the student's error, its calibration error, its agreement with the teacher.

    Agreement, solid: on the third of the views that is augmented most; dotted: on the third that is augmented least.
    A panel that no run has measured is left out (mixed views have no errors, runs without a teacher no agreement).
    None if nothing was measured. See `kdaug.training.view_measures`.
    """
    measured = {name: [_mean([errors_by_epoch(r, name) for r in curve.runs]) for curve in curves] for name in _VIEWS}
    panels = [name for name, lines in measured.items() if name != _WEAK and any(epochs for epochs, _ in lines)]
    if not panels:
        return None
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for name, axes in zip(panels, np.ravel(figure.subplots(1, len(panels))), strict=True):
        for index, (curve, line) in enumerate(zip(curves, measured[name], strict=True)):
            axes.plot(*line, label=curve.label if name == panels[0] else None, **curve.style)
            if name == _STRONG:
                axes.plot(*measured[_WEAK][index], **{**curve.style, "ls": ":"})
        axes.set_ylabel(_VIEWS[name])
    _finish_figure(figure, curves)
    return figure


def _finish_figure(figure: Figure, curves: Sequence[Curve], stacked: bool = False) -> None:
    """The epoch axes, the style and the legend. Up to 12 evaluations have a tick each."""
    evaluations = sorted({epoch for curve in curves for run in curve.runs for epoch in errors_by_epoch(run)})
    for axes in figure.axes:
        axes.set_xlabel("epoch")
        if 0 < len(evaluations) <= _MAX_TICKS:
            axes.set_xticks(evaluations)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        style_axes(axes)
    add_legend(figure, len(curves), above=stacked)


def _mean(runs: Sequence[dict[int, float]]) -> tuple[list[int], list[float]]:
    """The epochs that all runs have, and the mean over the runs at each."""
    epochs = sorted(set.intersection(*(set(run) for run in runs)))
    return epochs, [statistics.fmean(run[epoch] for run in runs) for epoch in epochs]


def errors_by_epoch(run: Path, name: str = "top1_error") -> dict[int, float]:
    """The error or measure called `name`, in percent, at each evaluation that has it, by epoch from 1."""
    return {line["epoch"] + 1: line[name] for line in read_metrics(run) if line["kind"] == "eval" and name in line}


def cross_entropy_by_epoch(run: Path) -> dict[int, float]:
    """Mean cross-entropy in nats of the training steps of each epoch, by epoch from 1."""
    by_epoch: dict[int, list[float]] = {}
    for line in read_metrics(run):
        if line["kind"] == "step":
            by_epoch.setdefault(line["epoch"] + 1, []).append(line["cross_entropy"])
    return {epoch: sum(values) / len(values) for epoch, values in by_epoch.items()}
