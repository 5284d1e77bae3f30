"""Our results next to the paper's: runs in the right cells, paired gains, and reasons for what is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.numpy
from support.browser import needs_chromium, open_on_phone

from kdaug.config import Data
from kdaug.errors import InputError
from kdaug.study.paper.reproduce import write_reproduction
from kdaug.study.paper.results import cell_results, study_recipes
from kdaug.study.paper.studies import PaperStudy, paper_study

SEEDS = (0, 1)


@pytest.fixture
def study() -> PaperStudy:
    return paper_study("table1", "smoke")


@pytest.fixture
def runs(study: PaperStudy, tmp_path: Path, write_run_files: Callable[..., None]) -> Path:
    """Errors for the two seeds: 20 + M and 22 + M without teacher, 19 and 20 with; no run of M = 7 with teacher."""
    folder = tmp_path / "runs"
    for name, recipe in study_recipes(study, SEEDS, Data(), "cpu").items():
        magnitude = float(name.removeprefix("cifar100-table1-m")[0])
        error = 19.0 + recipe.run.seed if "-kd" in name else 20.0 + magnitude + 2 * recipe.run.seed
        if name.startswith("cifar100-table1-m7-kd"):
            continue
        write_run_files(folder / name, recipe, error)
    return folder


def test_recipes_have_the_users_seeds_folder_and_device(study: PaperStudy) -> None:
    recipes = study_recipes(study, (3, 5), Data(root="images", download=True), "cpu")
    assert len(recipes) == 2 * len(study.cells)
    assert [recipe.run.seed for recipe in recipes.values()] == [3] * len(study.cells) + [5] * len(study.cells)
    for recipe in recipes.values():
        assert (recipe.data.root, recipe.data.download, recipe.run.device) == ("images", True, "cpu")


def test_cells_have_means_and_paired_gains(study: PaperStudy, runs: Path) -> None:
    results = {result.cell.name: result for result in cell_results(study, runs)[0]}
    label_only, with_teacher = results["cifar100-table1-m3"], results["cifar100-table1-m3-kd"]
    assert label_only.group is not None
    assert with_teacher.group is not None
    assert with_teacher.gain is not None
    assert (label_only.group.mean, with_teacher.group.mean) == (24.0, 19.5)
    assert (with_teacher.gain.mean, with_teacher.gain.pairs) == (4.5, 2)
    assert with_teacher.published_gain == 2.5
    assert label_only.gain is None
    missing = results["cifar100-table1-m7-kd"]
    assert (missing.group, missing.gain) == (None, None)


def test_missing_seeds_are_listed(study: PaperStudy, runs: Path) -> None:
    shutil.rmtree(runs / "cifar100-table1-m0_seed=0")
    results, left_out = cell_results(study, runs)
    assert results[0].group is not None
    assert results[0].group.mean == 22.0
    assert left_out == ["not finished: cifar100-table1-m0 (seed 0), cifar100-table1-m7-kd (seed 0, 1)"]


def test_runs_of_another_scale_are_refused(study: PaperStudy, runs: Path) -> None:
    with pytest.raises(InputError, match=r"no run of Table 1 is finished in .*data\.name: bundled -> cifar-10"):
        cell_results(paper_study("table1", "cpu"), runs)


def test_damaged_run_leaves_others_in(study: PaperStudy, runs: Path) -> None:
    (runs / "cifar100-table1-m3_seed=1/recipe.yaml").write_text("views: [")
    results, left_out = cell_results(study, runs)
    assert sum(len(result.group.runs) for result in results if result.group is not None) == 13
    assert any("cifar100-table1-m3_seed=1/recipe.yaml" in reason for reason in left_out)


def test_failed_and_unfinished_runs_are_listed_once(
    study: PaperStudy, runs: Path, write_run_files: Callable[..., None]
) -> None:
    recipes = study_recipes(study, (5,), Data(), "cpu")
    write_run_files(runs / "cifar100-table1-m0_seed=5", recipes["cifar100-table1-m0_seed=5"], 50.0, finished=False)
    fixed, failed = "cifar100-table1-m0_seed=0", "cifar100-table1-m7-kd_seed=0"
    failures = {failed: "no luck", fixed: "long ago", "other": "of other studies"}
    (runs / "failed.json").write_text(json.dumps(failures))
    safetensors.numpy.save_file({}, runs / fixed / "last.safetensors")
    assert cell_results(study, runs)[1] == [
        "not finished: cifar100-table1-m0 (seed 5), cifar100-table1-m7-kd (seed 0, 1)",
        f"{runs}/{failed} failed: no luck",
    ]


def test_seeds_on_other_images_are_not_averaged(study: PaperStudy, runs: Path) -> None:
    for seed, content in enumerate(("these", "those")):
        (runs / f"cifar100-table1-m0_seed={seed}/environment.json").write_text(json.dumps({"data": content}))
    results, left_out = cell_results(study, runs)
    assert results[0].group is not None
    assert results[0].group.mean == 20.0
    assert f"{runs}/cifar100-table1-m0_seed=1 has other images than {runs}/cifar100-table1-m0_seed=0" in left_out


@pytest.mark.parametrize("name", ["figure2", "figure4"])
def test_smaller_imagenet_figures_keep_the_papers_original(name: str) -> None:
    for scale in ("smoke", "cpu", "gpu"):
        for cell in paper_study(name, scale).cells:
            assert (cell.original.data.name, cell.original.student.name) == ("folder", "tf_efficientnet_b0")
            assert cell.published is None
            if cell.baseline is not None:
                assert cell.original.supervision.weight == cell.recipe.supervision.weight
                assert cell.original.supervision.k == cell.recipe.supervision.k


def test_report_compares_with_the_paper(study: PaperStudy, runs: Path, tmp_path: Path) -> None:
    tables, left_out = write_reproduction(study, runs, tmp_path / "out")
    assert left_out == ["not finished: cifar100-table1-m7-kd (seed 0, 1)"]
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in tables.splitlines()]
    (row,) = [row for row in rows if row[:2] == ["M = 3", "with the teacher"]]
    assert row[2:5] == ["19.50 ± 0.71", "2", "19.9"]
    assert row[5].startswith("+4.50 [-1.85, +10.85]")
    assert row[6:] == ["+2.5", "label only"]
    assert ["M = 7", "with the teacher", "", "0", "48.0", "", "+7.1", "label only"] in rows
    text = (tmp_path / "out/report.md").read_text()
    assert all(line in text for line in tables.splitlines())
    assert ["The teacher gains at every magnitude.", "undecided"] in [row[:2] for row in rows]
    assert "student.name wide_resnet10_1 (the paper: wide_resnet28_10)" in text
    assert "optimization.epochs 2 (the paper: 200)" in text
    assert "Left out: not finished: cifar100-table1-m7-kd (seed 0, 1)." in text
    page = (tmp_path / "out/index.html").read_text()
    assert "19.50 ± 0.71" in page
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[:3] == ["Statements of the paper", "Gains", "Training curves"]
    assert re.findall("^## (.*)$", text, re.MULTILINE) == headings[:-1]
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "out/figures/gains.svg").is_file()
    content = json.loads((tmp_path / "out/report.json").read_text())
    (cell,) = [cell for cell in content["cells"] if cell["name"] == "cifar100-table1-m3-kd"]
    assert (cell["error"], cell["published"], cell["gain"]["mean"], cell["published_gain"]) == (19.5, 19.9, 4.5, 2.5)
    growth = content["verdicts"][1]
    assert (growth["statement"], growth["verdict"]) == ("The gain grows with the magnitude.", "holds")
    assert growth["evidence"].startswith("Spearman's ρ = +0.9")
    assert {"paper": 200, "ours": 2} in content["differences"]["optimization.epochs"]
    lines = (tmp_path / "out/runs.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 7


@needs_chromium
def test_the_page_fits_a_phone(study: PaperStudy, runs: Path, tmp_path: Path) -> None:
    write_reproduction(study, runs, tmp_path / "out")
    with open_on_phone(tmp_path / "out/index.html") as page:
        table = page.get_by_role("region", name="Comparison with the paper")
        assert table.locator("tr").count() == 1 + len(study.cells)
        heights = table.locator("td:first-child").evaluate_all("cells => cells.map(cell => cell.clientHeight)")
        assert max(heights) < 2 * 16 * 1.55, "no line break in a cell such as M = 0"
