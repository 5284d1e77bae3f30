"""Curves of several runs over their epochs, from their metrics.jsonl."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdaug.training import read_metrics

COLORS = ("#c2410c", "#1d4ed8", "#15803d", "#7e22ce")


def curves_svg(runs: dict[str, Path]) -> str:
    """SVG of validation error and training cross-entropy against epochs, one line per run (title: directory)."""
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    error, cross_entropy = figure.subplots(1, 2)
    for (title, directory), color in zip(runs.items(), itertools.cycle(COLORS), strict=False):
        errors, means = errors_by_epoch(directory), cross_entropy_by_epoch(directory)
        error.plot(list(errors), list(errors.values()), "o-", ms=4, color=color, label=title)
        cross_entropy.plot(list(means), list(means.values()), "o-", ms=4, color=color, label=title)
    _finish(error, "Error on the validation images, %")
    _finish(cross_entropy, "Cross-entropy on the training views, nats")
    error.legend(frameon=False)
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "kdaug"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def errors_by_epoch(directory: Path) -> dict[int, float]:
    """Top-1 error in percent of a run at each evaluation, by epoch from 1."""
    return {line["epoch"] + 1: line["top1_error"] for line in read_metrics(directory) if line["kind"] == "eval"}


def cross_entropy_by_epoch(directory: Path) -> dict[int, float]:
    """Mean cross-entropy of a run's training steps in nats, by epoch from 1."""
    by_epoch: dict[int, list[float]] = {}
    for line in read_metrics(directory):
        if line["kind"] == "step":
            by_epoch.setdefault(line["epoch"] + 1, []).append(line["cross_entropy"])
    return {epoch: sum(values) / len(values) for epoch, values in by_epoch.items()}


def style_axes(axes: Axes) -> None:
    """No box, faint lines to read values by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("epoch")
    style_axes(axes)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
