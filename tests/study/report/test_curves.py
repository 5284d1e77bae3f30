"""Training curves: the lines in the figure are the numbers in metrics.jsonl."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from kdaug.study.report.curves import Curve, curves_figure
from kdaug.study.report.plotting import to_svg

COLORS = ("#c2410c", "#1d4ed8")
ERRORS = ([80.0, 40.0, 42.0], [60.0, 30.0, 10.0])
CROSS_ENTROPIES = ([[2.0, 1.0], [0.5, 0.7], [0.4, 0.2]], [[2.2, 2.0], [1.0, 1.4], [0.9, 0.5]])


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Two runs of three epochs with two steps each, one evaluation an epoch."""
    directories = {"labels only": tmp_path / "a", "with & <teacher>": tmp_path / "b"}
    for directory, errors, losses in zip(directories.values(), ERRORS, CROSS_ENTROPIES, strict=True):
        lines, step = [], 0
        for epoch in range(3):
            for value in losses[epoch]:
                step += 1
                lines.append({"kind": "step", "step": step, "epoch": epoch, "loss": 9.0, "cross_entropy": value})
            lines.append({"kind": "eval", "step": step, "epoch": epoch, "top1_error": errors[epoch]})
        lines.append({"kind": "end", "step": step, "epoch": 2, "top1_error": errors[-1]})
        directory.mkdir()
        (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directories


def draw(runs: dict[str, Path]) -> str:
    """SVG with a line per run, in COLORS."""
    curves = [Curve(label, [run], {"color": color}) for (label, run), color in zip(runs.items(), COLORS, strict=True)]
    return to_svg(curves_figure(curves)).decode()


def lines_in(svg: str, color: str) -> list[np.ndarray]:
    """Points [n,2] of each curve drawn in `color`, in SVG coordinates, without the legend's samples."""
    lines = []
    for path in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}path"):
        if f"stroke: {color}" in path.get("style", "") and "fill: none" in path.get("style", ""):
            numbers = re.findall(r"[ML] (\S+) (\S+)", path.get("d").replace("\n", " "))
            points = np.array(numbers, float)
            if len(points) == 3 and len(set(points[:, 1])) > 1:
                lines.append(points)
    return lines


def test_curves_are_mean_cross_entropies_and_errors(runs: dict[str, Path]) -> None:
    svg = draw(runs)
    drawn = [lines_in(svg, color) for color in COLORS]
    assert [len(lines) for lines in drawn] == [2, 2]
    means = [[sum(epoch) / 2 for epoch in losses] for losses in CROSS_ENTROPIES]
    for panel, wanted in ((0, means), (1, ERRORS)):
        points = np.concatenate([drawn[0][panel], drawn[1][panel]])
        values, epochs = np.concatenate(wanted), np.tile([1.0, 2.0, 3.0], 2)
        down, level = np.polyfit(values, points[:, 1], 1)  # a linear axis: one slope for both runs
        np.testing.assert_allclose(points[:, 1], down * values + level, atol=0.01)
        assert down < 0, "larger values are higher up"
        right, start = np.polyfit(epochs, points[:, 0], 1)
        np.testing.assert_allclose(points[:, 0], right * epochs + start, atol=0.01)
        assert right > 0


def test_same_runs_give_the_same_bytes(runs: dict[str, Path]) -> None:
    assert draw(runs) == draw(runs)


def test_svg_is_well_formed_and_names_each_run(runs: dict[str, Path]) -> None:
    svg = draw(runs)
    assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
    comments = re.findall(r"<!-- (.*?) -->", svg)  # matplotlib writes each text as a comment
    assert {"labels only", "epoch", "error, %"} <= set(comments)


def test_curve_of_several_runs_is_their_mean(runs: dict[str, Path]) -> None:
    metrics = runs["labels only"] / "metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if '"epoch": 2' not in line))
    loss, error = curves_figure([Curve("both", list(runs.values()), {})]).axes
    np.testing.assert_allclose(error.get_lines()[0].get_xydata(), [[1, 70.0], [2, 35.0]])
    np.testing.assert_allclose(loss.get_lines()[0].get_xydata(), [[1, 1.8], [2, 0.9]])


def test_training_errors_are_thin_dotted_lines(runs: dict[str, Path]) -> None:
    for run in runs.values():
        lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
        lines = [line | {"train_error": 5.0} if line["kind"] == "eval" else line for line in lines]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curves = [Curve(label, [run], {"ls": "--"}) for label, run in runs.items()]
    lines = curves_figure(curves).axes[1].get_lines()
    dotted = [line for line in lines if line.get_linestyle() == ":"]
    assert [list(line.get_ydata()) for line in dotted] == [[5.0] * 3] * 2
    assert all(line.get_linewidth() < lines[0].get_linewidth() for line in dotted)


def test_epoch_axes_have_ticks_at_the_evaluations(runs: dict[str, Path]) -> None:
    for axes in curves_figure([Curve("both", list(runs.values()), {})]).axes:
        assert list(axes.get_xticks()) == [1, 2, 3]


def test_run_without_evaluation_is_drawn(runs: dict[str, Path]) -> None:
    metrics = runs["labels only"] / "metrics.jsonl"
    metrics.write_text(metrics.read_text().splitlines()[0] + "\n")
    assert "<svg" in draw(runs)
