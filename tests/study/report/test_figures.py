"""What is drawn: every group, told apart, and its numbers where they belong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from kdaug.config import with_settings
from kdaug.recipes import RECIPES
from kdaug.study.report.compare import Group, group_runs
from kdaug.study.report.figures import curves, error_against, figures_of
from kdaug.study.report.write import finished_runs

Groups = Callable[[Sequence[Mapping[str, Any]]], list[Group]]


@pytest.fixture
def groups(tmp_path: Path, leave: Callable[..., None]) -> Groups:
    """groups(settings): those of finished runs with each of `settings`, whose errors are 50, 51 and so on."""

    def left(settings: Sequence[Mapping[str, Any]]) -> list[Group]:
        recipe = RECIPES["cifar100-table1-small"].make()
        for place, each in enumerate(settings):
            leave(tmp_path / f"{place}", with_settings(recipe, each, "test"), 50.0 + place)
        return group_runs(finished_runs([tmp_path])[0])

    return left


TABLE = [
    {"views.magnitude": float(magnitude), "teacher.source": source}
    for magnitude in range(8)
    for source in ("none", "train")
]


def drawn(axes: Axes) -> list[tuple[str, list[float], list[float]]]:
    """Label, x and y of every line with points."""
    return [
        (str(bars.get_label()), list(bars.lines[0].get_xdata()), list(bars.lines[0].get_ydata()))
        for bars in axes.containers
    ]


def test_the_whole_of_table_1_has_curves_whose_colour_is_the_magnitude(groups: Groups) -> None:
    figure = curves(groups(TABLE))
    lines = figure.axes[1].get_lines()
    assert [line.get_ydata()[0] for line in lines] == [50.0 + place for place in range(16)]
    looks = [(line.get_color(), line.get_linestyle()) for line in lines]
    assert len({color for color, _ in looks}) == 8
    for alone, taught in zip(looks[::2], looks[1::2], strict=True):
        assert alone[0] == taught[0]
        assert (alone[1], taught[1]) == ("-", "--")
    assert len(figure.legends[0].get_texts()) == 16


def test_no_two_lines_look_the_same(groups: Groups) -> None:
    taught = [{"supervision.weight": 0.5, "supervision.k": k} for k in (2, 5, 10, 25, 50)]
    figure = curves(groups([*taught, {"supervision.weight": 1.0}, {"teacher.source": "none"}]))
    assert len({(line.get_color(), line.get_linestyle()) for line in figure.axes[1].get_lines()}) == 7


def test_more_lines_than_can_be_named_are_drawn_all_the_same(groups: Groups) -> None:
    figure = curves(groups([{"views.magnitude": place / 10} for place in range(25)]))
    assert len(figure.axes[1].get_lines()) == 25
    assert not figure.legends
    assert figure.get_suptitle() == "25 lines, by name in the tables"


def test_a_figure_for_every_setting_of_two_numbers(groups: Groups) -> None:
    assert [name for name, _ in figures_of(groups(TABLE))] == ["curves", "error-views.magnitude"]


def test_figure_4_has_a_line_for_each_grid_and_a_level_one_without_teacher(groups: Groups) -> None:
    points = [(0.1, 10), (0.5, 10), (2.0, 10), (0.5, 2), (0.5, 50)]
    taught = [{"supervision.weight": weight, "supervision.k": k} for weight, k in points]
    found = groups([*taught, {"teacher.source": "none"}])
    weights = error_against("supervision.weight", found).axes[0]
    assert drawn(weights) == [("teacher.source=train, supervision.k=10", [0.1, 0.5, 2.0], [50.0, 51.0, 52.0])]
    assert weights.get_xscale() == "log"
    assert [tick.get_text() for tick in weights.get_xticklabels()] == ["0.1", "0.5", "2"]
    (level,) = (line for line in weights.get_lines() if line.get_label() == "teacher.source=none")
    assert list(level.get_ydata()) == [55.0, 55.0]
    sizes = error_against("supervision.k", found).axes[0]
    assert drawn(sizes) == [("teacher.source=train, supervision.weight=0.5", [2, 10, 50], [53.0, 51.0, 54.0])]


def test_what_never_varies_alone_has_no_figure(groups: Groups) -> None:
    found = groups([{"views.magnitude": 1.0, "supervision.k": 2}, {"views.magnitude": 2.0, "supervision.k": 5}])
    assert [name for name, _ in figures_of(found)] == ["curves"]


def test_numbers_near_each_other_stand_on_a_linear_axis(groups: Groups) -> None:
    axes = error_against("views.magnitude", groups([{"views.magnitude": 1.0}, {"views.magnitude": 2.0}])).axes[0]
    assert [(x, y) for _, x, y in drawn(axes)] == [([1.0, 2.0], [50.0, 51.0])]
    assert axes.get_xscale() == "linear"
