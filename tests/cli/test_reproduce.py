"""kdaug reproduce: training and report, the second call, and errors."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from kdaug.config import Data
from kdaug.study.paper import paper_study, study_recipes
from kdaug.training.resolve import teacher_run_names

SEEDS_PROBLEM = "kdaug: --seeds must be different whole numbers from 0 to 2^63 - 1, such as --seeds 0 1 2\n"
ALL_STUDIES = "(choose one of table1, table2, table3, figure2, figure4, section3.4, figure1, figure3)\n"


def test_a_study_is_trained_once_and_reported(kdaug: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    command = ("reproduce", "table1", "--dir", folder, "--device", "cpu")
    only = (*command, "--only", "*-m7-kd")
    result = kdaug(*only)
    assert result.code == 0
    missing = ", ".join(f"cifar100-table1-m{cell} (seed 0)" for cell in ("0", "0-kd", "1", "1-kd", "3", "3-kd", "7"))
    assert result.err == f"kdaug: left out: not finished: {missing}\n"
    assert "2 of 2 jobs finished" in result.out
    assert [path.name for path in folder.glob("cifar100-*")] == ["cifar100-table1-m7-kd_seed=0"]
    assert "| M = 7 | with the teacher | " in result.out
    assert "| M = 0 | label only |  | 0 | 18.4 |" in result.out
    for name in ("index.html", "report.md", "report.json", "runs.csv", "figures/curves.svg"):
        assert (folder / "table1-report" / name).is_file()
    before = (folder / "table1-report/report.json").read_bytes()
    again = kdaug(*only, "--out", tmp_path / "again")
    assert (again.code, again.err) == (0, result.err)
    assert "running" not in again.out
    assert (tmp_path / "again/report.json").read_bytes() == before


def test_figures_1_and_3_are_inspections_with_the_teacher_of_the_tables(kdaug: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    command = ("--dir", folder, "--device", "cpu")
    first = kdaug("reproduce", "figure1", *command)
    assert first.code == 0
    page = folder / "figure1-inspection" / "index.html"
    assert f"Figure 1: views, and the teacher's soft labels for them: open {page}#outliers\n" in first.out
    assert 'id="outliers"' in page.read_text()
    (teacher,) = (folder / "teachers").iterdir()
    third = kdaug("reproduce", "figure3", *command, "--out", tmp_path / "third")
    assert third.code == 0
    assert f"{teacher} is already finished" in third.out
    assert 'id="by-magnitude"' in (tmp_path / "third" / "index.html").read_text()
    magnitudes = [magnitudes_of(out / "views.csv") for out in (folder / "figure1-inspection", tmp_path / "third")]
    assert magnitudes == [{"5"}, {"0", "1", "2", "3", "5", "7", "9"}]
    of_table = study_recipes(paper_study("table1", "smoke"), [0], Data(), "cpu")["cifar100-table1-m7-kd_seed=0"]
    assert [teacher.name] == teacher_run_names(of_table)


def magnitudes_of(file: Path) -> set[str]:
    with file.open(newline="") as text:
        return {row["magnitude"] for row in csv.DictReader(text) if row["kind"] == "policy"}


def test_cells_are_listed_in_the_order_of_only_without_training(
    kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = kdaug("reproduce", "section3.4", "--scale", "paper", "--list", "--only", "*clean-epochs-kd", "*clean*")
    assert result.code == 0
    assert [line.partition(":")[0] for line in result.out.splitlines()] == [
        "cifar100-clean-epochs-kd",
        "cifar100-clean-epochs",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["tabel1"], "there is no study 'tabel1'; did you mean table1? (choose one of table1, "),
        (["table9"], ALL_STUDIES),
        (["nothing"], ALL_STUDIES),
        (["figure1", "--only", "x"], "figure1 is one inspection, which trains a teacher only; leave out --only"),
        (["figure3", "--seeds", "0", "1"], "figure3 is one inspection"),
        (["figure3", "--jobs", "2"], "figure3 is one inspection"),
        (["figure1", "--scale", "cpu", "--root", "nowhere"], "--root"),
        (["table1", "--only"], "no cell matches --only; --list prints all cells"),
        (["table1", "--only", "x*"], "no cell matches --only x*; --list prints all cells"),
        (["table1", "--seeds", "0", "0"], SEEDS_PROBLEM),
        *((["table1", "--list", "--seeds", seed], SEEDS_PROBLEM) for seed in ("-1", "a", "1.5", "", str(1 << 63))),
        (["figure1", "--seeds", "a"], SEEDS_PROBLEM),
        (["table1", "--device", "tpu"], "; set --device to auto, cpu or cuda"),
        (["figure1", "--device", "tpu"], "; set --device to auto, cpu or cuda"),
        (["table1", "--out", ""], "--out is empty; give a folder"),
        (["table1", "--dir", ""], "--dir is empty; give a folder"),
        (["table1", "--jobs", "0"], "jobs at once is 0"),
        (["table1", "--cpus", "2"], "--cpus and --gpus require --on ray"),
        (["table1", "--on", "ray", "--cpus", "0"], "--cpus and --jobs must be at least 1"),
        (["table1", "--on", "ray", "--gpus", "nan"], "--gpus is nan, but must be from 0 to 1 or a whole number"),
        (["table1", "--on", "ray", "--gpus", "1.5"], "--gpus is 1.5, but must be from 0 to 1 or a whole number"),
        (["table1", "--scale", "cpu", "--root", "nowhere"], "--root"),
        (["table3", "--scale", "cpu", "--root", "nowhere"], "nowhere"),
        (["table1", "--scale", "huge"], "huge"),
        ([], "a table or figure is missing; choose one of table1, "),
    ],
)
def test_bad_input_is_one_line(kdaug: Callable, tmp_path: Path, arguments: list[str], problem: str) -> None:
    result = kdaug("reproduce", arguments[0] if arguments else "", "--dir", tmp_path / "runs", *arguments[1:])
    assert result.code == 2
    assert problem in result.err
    assert len(result.err.splitlines()) == 1
    assert not list(tmp_path.glob("runs/cifar*"))


def test_the_largest_seed_is_accepted(kdaug: Callable) -> None:
    assert kdaug("reproduce", "table1", "--list", "--seeds", (1 << 63) - 1).code == 0


@pytest.mark.parametrize("study", ["table1", "figure1"])
@pytest.mark.parametrize("flag", ["--dir", "--out"])
@pytest.mark.parametrize("below", ["", "a/b"])
def test_folders_are_checked_before_training(
    kdaug: Callable, tmp_path: Path, study: str, flag: str, below: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    result = kdaug("reproduce", study, "--dir", tmp_path / "runs", "--out", tmp_path / "out", flag, file / below)
    problem = f"kdaug: {file} is not a folder that can be written to; choose another folder\n"
    assert (result.code, result.out, result.err) == (2, "", problem)
    assert list(tmp_path.iterdir()) == [file]
