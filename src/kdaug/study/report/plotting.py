"""The common style of all figures, and their file formats."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_MAX_LEGEND_LINES = 24
"""A longer legend would be higher than the figure."""


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure of a report. name: of its files, without ending. title, caption: for people."""

    name: str
    title: str
    caption: str
    figure: Figure


def style_axes(axes: Axes) -> None:
    """Removes the box and adds faint horizontal lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)


def add_legend(figure: Figure, lines: int, above: bool = False) -> None:
    """Puts a legend to the right of the axes, or above them, unless there are too many `lines`."""
    if lines <= _MAX_LEGEND_LINES:
        figure.legend(loc="outside upper center" if above else "outside right upper", frameon=False, fontsize=8)
    else:
        figure.suptitle(f"{lines} lines; the tables name them", fontsize=8)


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG; equal figures give equal bytes."""
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "kdaug"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def save_pdf(figure: Figure, path: Path) -> None:
    """Writes the figure as PDF; equal figures give equal bytes."""
    figure.savefig(path, metadata={"CreationDate": None})
