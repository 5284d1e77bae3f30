"""The paper's tables and figures as studies: all published numbers, and the named recipes."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from kdaug.config import check
from kdaug.errors import InputError
from kdaug.recipes import RECIPES
from kdaug.recipes.named import load_table
from kdaug.recipes.scales import Scale
from kdaug.study.paper.studies import STUDIES, paper_differences, paper_study

SCALES = get_args(Scale)


def published(name: str) -> list[float]:
    return sorted(cell.published for cell in paper_study(name, "paper").cells if cell.published is not None)


@pytest.mark.parametrize(
    ("name", "scale"), [pair for pair in itertools.product(STUDIES, SCALES) if pair != ("table3", "bundled")]
)
def test_cells_and_baselines_are_complete(name: str, scale: Scale) -> None:
    study = paper_study(name, scale)
    names = [cell.name for cell in study.cells]
    assert len(set(names)) == len(names) >= 3
    for cell in study.cells:
        check(cell.recipe)
        assert cell.baseline is None or cell.baseline in names
        assert cell.baseline != cell.name
    assert bool(paper_differences(study.cells)) == (scale != "paper")


def test_table1_has_the_papers_magnitudes_and_gains() -> None:
    paper = load_table("paper")["table1"]
    cells = {cell.name: cell for cell in paper_study("table1", "paper").cells}
    gains = []
    for cell in cells.values():
        if cell.baseline is not None:
            baseline = cells[cell.baseline]
            assert (baseline.recipe.teacher.source, cell.recipe.teacher.source) == ("none", "train")
            assert baseline.recipe.views == cell.recipe.views
            assert baseline.row == cell.row == f"M = {paper['magnitude'][len(gains)]}"
            assert baseline.published is not None
            assert cell.published is not None
            gains.append(round(baseline.published - cell.published, 1))
    assert gains == paper["gain"]


def test_table2_has_all_published_errors() -> None:
    paper = load_table("paper")["table2"]
    rows = [*paper["cifar10"].values(), *paper["cifar100"].values()]
    assert published("table2") == sorted(error for row in rows for error in row if error is not None)


def test_table3_has_all_published_errors() -> None:
    paper = load_table("paper")["table3"]
    columns = paper["columns"]
    errors = published("table3")
    for row in paper["rows"]:
        top1 = dict(zip(columns, row["top1"], strict=True))
        for method in ("autoaugment", "advprop", "ours"):
            errors.remove(round(100 - top1[method], 1))
        errors.remove(round(100 - (top1["randaugment"] or top1["randaugment_reproduced"]), 1))
    assert errors == [14.2, 16.8], "B8 tested at 800 pixels, B4 at twice the epochs"


def test_figure4_has_the_papers_grid_above_smoke_scale() -> None:
    for scale in ("cpu", "gpu", "paper"):
        baseline, *cells = paper_study("figure4", scale).cells
        points = {(cell.recipe.supervision.weight, cell.recipe.supervision.k) for cell in cells}
        assert points == {*((w, 10) for w in (0.1, 0.2, 0.5, 1.0, 2.0)), *((0.5, k) for k in (2, 5, 10, 25, 50))}
        assert {cell.baseline for cell in cells} == {baseline.name}
        assert len({repr(cell.recipe.views) for cell in cells}) == 1, "one label store serves all of them"
    assert published("figure4") == [22.0, 22.3, 22.6]


def test_section34_has_the_errors_of_the_text() -> None:
    cells = {cell.name: cell.published for cell in paper_study("section3.4", "paper").cells}
    assert list(cells.values()) == [17.1, 16.2, 16.8, 16.2, 14.3, 13.8]


def test_smaller_figure2_shares_its_runs_with_table1() -> None:
    ours = {cell.name: cell.recipe for cell in paper_study("table1", "cpu").cells}
    figure = paper_study("figure2", "cpu").cells
    assert len(figure) == 8
    for cell in figure:
        assert ours[cell.name] == cell.recipe
        assert cell.published is None


def test_paper_scale_uses_the_named_recipes() -> None:
    for name in ("table1", "table2", "table3", "section3.4"):
        for cell in paper_study(name, "paper").cells:
            assert cell.recipe == RECIPES[cell.name].make()
            assert cell.published == RECIPES[cell.name].published_error


def test_unknown_study_error_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"no study 'tabel1'; did you mean table1"):
        paper_study("tabel1", "smoke")


def test_teacher_settings_differ_only_with_a_teacher() -> None:
    assert "supervision.weight" not in paper_differences(paper_study("figure4", "cpu").cells)
    assert "supervision.temperature" in paper_differences(paper_study("figure4", "cpu").cells)


def test_differences_list_each_pair_once() -> None:
    differences = paper_differences(paper_study("section3.4", "cpu").cells)
    assert differences["student.name"] == [
        ("wide_resnet28_10", "wide_resnet10_1"),
        ("shake_shake26_2x96d", "wide_resnet16_1"),
    ]
    assert "views.policy" not in differences
    assert "supervision.weight" not in differences
