"""Figures of a report: each group has its own line, with its numbers at the right coordinates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from kdaug.config import with_settings
from kdaug.recipes import RECIPES
from kdaug.study.report.compare import Group, group_runs
from kdaug.study.report.curves import Curve, curves_figure, views_figure
from kdaug.study.report.figures import comparison_figures, error_by_setting, group_curves
from kdaug.study.report.finished import find_finished_runs

WriteGroups = Callable[[Sequence[Mapping[str, Any]]], list[Group]]


@pytest.fixture
def groups(tmp_path: Path, write_run_files: Callable[..., None]) -> WriteGroups:
    """groups(settings): groups of finished runs, one for each of `settings`, with errors of 50, 51 and so on."""

    def write(settings: Sequence[Mapping[str, Any]]) -> list[Group]:
        recipe = RECIPES["table1-small"].make()
        for index, each in enumerate(settings):
            write_run_files(tmp_path / f"{index}", with_settings(recipe, each, "test"), 50.0 + index)
        return group_runs(find_finished_runs([tmp_path])[0])

    return write


TABLE1 = [
    {"views.magnitude": float(magnitude), "teacher.source": source}
    for magnitude in range(8)
    for source in ("none", "train")
]


def lines_with_points(axes: Axes) -> list[tuple[str, list[float], list[float]]]:
    """Label, x and y of every line with points."""
    return [
        (str(bars.get_label()), list(bars.lines[0].get_xdata()), list(bars.lines[0].get_ydata()))
        for bars in axes.containers
    ]


def test_color_of_curves_is_the_magnitude(groups: WriteGroups) -> None:
    figure = curves_figure(group_curves(groups(TABLE1)))
    lines = figure.axes[1].get_lines()
    assert [line.get_ydata()[0] for line in lines] == [50.0 + index for index in range(16)]
    styles = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len({color for color, _ in styles}) == 8
    for label_only, with_teacher in zip(styles[::2], styles[1::2], strict=True):
        assert label_only[0] == with_teacher[0]
        assert (label_only[1], with_teacher[1]) == ("-", "--")
    assert len(figure.legends[0].get_texts()) == 16


def test_all_lines_look_different(groups: WriteGroups) -> None:
    with_teacher = [{"supervision.weight": 0.5, "supervision.k": k} for k in (2, 5, 10, 25, 50)]
    figure = curves_figure(
        group_curves(groups([*with_teacher, {"supervision.weight": 1.0}, {"teacher.source": "none"}]))
    )
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[1].get_lines()}) == 7


def test_many_lines_are_drawn_without_legend(groups: WriteGroups) -> None:
    figure = curves_figure(group_curves(groups([{"views.magnitude": index / 10} for index in range(25)])))
    assert len(figure.axes[1].get_lines()) == 25
    assert not figure.legends
    assert figure.get_suptitle() == "25 lines; the tables name them"


def test_there_is_a_figure_for_each_numeric_setting(groups: WriteGroups) -> None:
    assert [each.name for each in comparison_figures(groups(TABLE1))] == ["curves", "error-views.magnitude"]


def test_titles_and_captions_say_what_figures_show(groups: WriteGroups) -> None:
    curves, by_magnitude = comparison_figures(groups(TABLE1))
    assert (curves.title, by_magnitude.title) == ("Training curves", "Error by views.magnitude")
    assert curves.caption.endswith(
        "Color: views.magnitude, from dark to light. Lines: solid, teacher.source=none; dashed, teacher.source=train."
    )
    assert "dotted" not in curves.caption, "no run has measured its training error"
    assert "Bars: standard deviation" in by_magnitude.caption


def test_no_run_has_the_line_style_of_training_errors(groups: WriteGroups) -> None:
    weights = [{"views.magnitude": float(m), "supervision.weight": w} for m in range(5) for w in (0.1, 0.2, 0.5, 1.0)]
    styles = {curve.style["ls"] for curve in group_curves(groups(weights))}
    assert len(styles) == 4
    assert ":" not in styles


def test_figure_4_has_lines_per_grid_and_a_level_baseline(groups: WriteGroups) -> None:
    points = [(0.1, 10), (0.5, 10), (2.0, 10), (0.5, 2), (0.5, 50)]
    with_teacher = [{"supervision.weight": weight, "supervision.k": k} for weight, k in points]
    grids = groups([*with_teacher, {"teacher.source": "none"}])
    weights = error_by_setting("supervision.weight", grids).axes[0]
    assert lines_with_points(weights) == [
        ("teacher.source=train, supervision.k=10", [0.1, 0.5, 2.0], [50.0, 51.0, 52.0])
    ]
    assert weights.get_xscale() == "log"
    assert [tick.get_text() for tick in weights.get_xticklabels()] == ["0.1", "0.5", "2"]
    (level,) = (line for line in weights.get_lines() if line.get_label() == "teacher.source=none")
    assert list(level.get_ydata()) == [55.0, 55.0]
    sizes = error_by_setting("supervision.k", grids).axes[0]
    assert lines_with_points(sizes) == [
        ("teacher.source=train, supervision.weight=0.5", [2, 10, 50], [53.0, 51.0, 54.0])
    ]


def test_settings_that_never_vary_alone_have_no_figure(groups: WriteGroups) -> None:
    grids = groups([{"views.magnitude": 1.0, "supervision.k": 2}, {"views.magnitude": 2.0, "supervision.k": 5}])
    assert [each.name for each in comparison_figures(grids)] == ["curves"]


def test_close_numbers_have_a_linear_axis(groups: WriteGroups) -> None:
    axes = error_by_setting("views.magnitude", groups([{"views.magnitude": 1.0}, {"views.magnitude": 2.0}])).axes[0]
    assert [(x, y) for _, x, y in lines_with_points(axes)] == [([1.0, 2.0], [50.0, 51.0])]
    assert axes.get_xscale() == "linear"


def write_views(run: Path, **thirds: list[float]) -> Path:
    """A run directory with the agreement of each third at each evaluation, and errors of 40 and 7 % on the views."""
    run.mkdir()
    lines = [
        {"kind": "eval", "step": epoch, "epoch": epoch, "top1_error": 50.0, "view_error": 40.0}
        | {"view_calibration_error": 7.0}
        | {f"view_agreement_{third}": values[epoch] for third, values in thirds.items()}
        for epoch in range(2)
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_errors_and_agreement_on_weak_and_strong_views_are_drawn(tmp_path: Path) -> None:
    runs = [write_views(tmp_path / f"{seed}", strong=[10.0 + seed, 30.0], weak=[60.0, 80.0 + seed]) for seed in (0, 2)]
    plain = write_views(tmp_path / "plain")
    figure = views_figure([Curve("taught", runs, {"color": "C0"}), Curve("plain", [plain], {"color": "C1"})])
    assert figure is not None
    error, calibration, agreement = figure.axes
    assert [list(line.get_ydata()) for line in error.get_lines()] == [[40.0, 40.0]] * 2
    assert [list(line.get_ydata()) for line in calibration.get_lines()] == [[7.0, 7.0]] * 2
    drawn = [list(line.get_ydata()) for line in agreement.get_lines() if len(line.get_xdata())]
    assert drawn == [[11.0, 30.0], [60.0, 81.0]]
    assert [str(text.get_text()) for text in figure.legends[0].get_texts()] == ["taught", "plain"]


def test_runs_without_a_teacher_have_no_agreement(tmp_path: Path) -> None:
    figure = views_figure([Curve("plain", [write_views(tmp_path / "plain")], {})])
    assert figure is not None
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["error on the fixed views, %", "calibration error on them, %"]


def test_runs_without_measures_have_no_figure_of_views(tmp_path: Path) -> None:
    run = write_views(tmp_path / "mixed")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    kept = [{name: value for name, value in line.items() if not name.startswith("view_")} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    assert views_figure([Curve("mixed", [run], {})]) is None
