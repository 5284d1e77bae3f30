"""A report on real evidence: every file is there, says the same, and needs no network."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdaug.cli.main import main
from kdaug.config import read_recipe
from kdaug.recipes import RECIPES
from kdaug.study.report.compare import group_runs
from kdaug.study.report.write import describe_machines, describe_teachers, finished_runs, report_notes
from kdaug.training.resolve import teacher_run_recipe

EVIDENCE = Path(__file__).parents[2] / "results"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On two magnitudes with and without teacher, and one run that is not finished."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(EVIDENCE / "cifar100-table1-small", folder / "runs")
    shutil.copytree(folder / "runs/m0-kd", folder / "runs/unfinished")
    metrics = folder / "runs/unfinished/metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if '"end"' not in line))
    assert main(["report", str(folder / "runs"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def end_of(name: str) -> dict:
    return json.loads((EVIDENCE / "cifar100-table1-small" / name / "metrics.jsonl").read_text().splitlines()[-1])


def test_the_table_says_what_the_runs_say(report: Path) -> None:
    table = (report / "report.md").read_text().partition("## All runs")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    assert rows[0][:3] == ["views.magnitude", "teacher.source", "error, %"]
    errors = {(row[0], row[1]): float(row[2]) for row in rows[2:]}
    for magnitude in (0, 4):
        label, taught = end_of(f"m{magnitude}-label")["top1_error"], end_of(f"m{magnitude}-kd")["top1_error"]
        assert errors[str(magnitude), "none"] == pytest.approx(label, abs=0.005)
        assert errors[str(magnitude), "train"] == pytest.approx(taught, abs=0.005)
        (gain,) = [row[-1] for row in rows[2:] if row[:2] == [str(magnitude), "train"]]
        assert float(gain) == pytest.approx(label - taught, abs=0.005)
    assert len(errors) == 4, "teachers are no runs of the study"


def test_csv_and_json_say_the_same(report: Path) -> None:
    lines = list(csv.DictReader((report / "runs.csv").open()))
    groups = json.loads((report / "report.json").read_text())["groups"]
    assert len(lines) == 4
    for group in groups:
        (line,) = [line for line in lines if line["run"] == group["runs"][0]["run"]]
        assert (
            float(line["top1_error"]) == group["error"] == statistics.fmean(run["top1_error"] for run in group["runs"])
        )
        assert line["teacher.source"] == group["settings"]["teacher.source"]


def test_the_page_needs_nothing_else(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/svg+xml;base64,") == 2
    for name in ("curves", "error-views.magnitude"):
        assert (report / f"figures/{name}.svg").read_bytes().startswith(b"<?xml")
        assert (report / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_what_a_reader_must_know_is_said(report: Path) -> None:
    for text in ((report / "report.md").read_text(), (report / "index.html").read_text()):
        assert "test images. Whoever chooses a setting by its figure here" in text.replace("\n", " ")
        assert "The same in all: data.name=cifar-100, data.train_images=10000, student.name=wide_resnet16_1" in text
        assert "unfinished is not finished" in text
        assert re.search("All runs: seed 0; device cpu; processor AMD EPYC; .*; packages kdaug 0", text)


def test_runs_on_other_images_are_not_averaged(leave: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["photos"].make()
    for seed, content in enumerate(("aaaa", "bbbb")):
        leave(tmp_path / f"{seed}", replace(recipe, run=replace(recipe.run, seed=seed)), 50.0)
        (tmp_path / f"{seed}/environment.json").write_text(json.dumps({"data": content}))
    groups = group_runs(finished_runs([tmp_path])[0])
    assert [(group.varied, len(group.runs)) for group in groups] == [
        ({"data.content": "aaaa"}, 1),
        ({"data.content": "bbbb"}, 1),
    ]
    notes = " ".join(report_notes(groups, []))
    assert "do not compare" in notes
    assert "500 validation images" in notes


def test_the_error_of_the_teacher_is_said(leave: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["cifar100-table1-small"].make()
    leave(tmp_path / "taught", recipe, 50.0)
    first = teacher_run_recipe(read_recipe(tmp_path / "taught/recipe.yaml"))
    teacher = Path(first.run.dir or "")
    assert describe_teachers(finished_runs([tmp_path])[0]) == []
    leave(teacher, first, 33.3)
    assert describe_teachers(finished_runs([tmp_path])[0]) == [f"Their teacher {teacher.name} errs on 33.30 %."]


def test_what_is_missing_is_said_on_the_terminal_too(
    leave: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPES["cifar100-table1-small"].make()
    leave(tmp_path / "runs/one", recipe, 50.0)
    leave(tmp_path / "runs/two", recipe, 50.0, finished=False)
    (tmp_path / "runs/failed.json").write_text('{"three": "out of memory"}')
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert f"left out: {tmp_path}/runs/two is not finished\n" in said
    assert f"left out: {tmp_path}/runs/three failed: out of memory\n" in said
    content = json.loads((tmp_path / "out/report.json").read_text())
    assert f"Left out: {tmp_path}/runs/three failed: out of memory." in content["notes"]
    assert content["common_settings"]["student.name"] == "wide_resnet10_1"


def test_what_failed_and_then_finished_is_not_left_out(leave: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["cifar100-table1-small"].make()
    leave(tmp_path / "runs/sweep/one", recipe, 50.0)
    (tmp_path / "runs/sweep/failed.json").write_text('{"one": "no luck", "two": "out of memory"}')
    for folder in ("runs", "runs/sweep"):
        runs, left_out = finished_runs([tmp_path / folder])
        assert [run.path.name for run in runs] == ["one"]
        assert left_out == [f"{tmp_path}/runs/sweep/two failed: out of memory"]
    assert finished_runs([tmp_path / "runs/sweep/one"])[1] == [], "one run is not its sweep"


def test_a_damaged_teacher_costs_no_report(leave: Callable, tmp_path: Path) -> None:
    leave(tmp_path / "taught", RECIPES["cifar100-table1-small"].make(), 50.0)
    teacher = Path(teacher_run_recipe(read_recipe(tmp_path / "taught/recipe.yaml")).run.dir or "")
    teacher.mkdir(parents=True)
    (teacher / "recipe.yaml").write_text("views: [")
    (teacher / "metrics.jsonl").write_text('{"kind": "end"}\n{"kind": "end"}\n')
    (told,) = describe_teachers(finished_runs([tmp_path / "taught"])[0])
    assert told.startswith(f"Of their teacher {teacher.name} nothing can be said: ")


def test_a_run_that_went_on_elsewhere_differs_from_itself(leave: Callable, tmp_path: Path) -> None:
    leave(tmp_path / "run", RECIPES["cifar100-table1-small"].make(), 50.0)
    environment = {"device": "cpu", "precision": "float32", "resumed": [{"step": 9, "device": "NVIDIA H100"}]}
    (tmp_path / "run/environment.json").write_text(json.dumps(environment))
    told = describe_machines(finished_runs([tmp_path])[0])
    assert told[1:] == ["The runs differ in device: NVIDIA H100; cpu."]


def test_several_seeds_are_one_group_of_json_and_lines_of_csv(leave: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["cifar100-table1-small"].make()
    errors = {(0, 0): 50.0, (1, 1): 53.0, (1, 0): 52.0}
    for (seed, of_views), error in errors.items():
        changed = replace(recipe, run=replace(recipe.run, seed=seed), views=replace(recipe.views, seed=of_views))
        leave(tmp_path / f"runs/{seed}{of_views}", changed, error)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    lines = list(csv.DictReader((tmp_path / "out/runs.csv").open()))
    assert {(int(x["run.seed"]), int(x["views.seed"])): float(x["top1_error"]) for x in lines} == errors
    (group,) = json.loads((tmp_path / "out/report.json").read_text())["groups"]
    assert group["error"] == pytest.approx(155 / 3)
    assert group["deviation"] == pytest.approx(statistics.stdev(errors.values()))
    rows = (tmp_path / "out/report.md").read_text().partition("## All runs")[2].splitlines()
    assert sorted(row.strip("| ").split(" | ")[0] for row in rows[4:] if row) == ["0", "1", "1, of views 0"]


def test_nothing_in_a_run_is_taken_for_markup(leave: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["photos"].make()
    for place in ("a", "b"):
        root = f"{place}<script>alert(1)</script>"
        leave(tmp_path / f"runs/{place}", replace(recipe, data=replace(recipe.data, root=root)), 50.0)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_where_runs_differ_in_their_machines_is_said(leave: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["cifar100-table1-small"].make()
    for seed, device in enumerate(("cpu", "NVIDIA H100")):
        leave(tmp_path / f"{seed}", replace(recipe, run=replace(recipe.run, seed=seed)), 50.0)
        (tmp_path / f"{seed}/environment.json").write_text(json.dumps({"device": device, "precision": "float32"}))
    told = describe_machines(finished_runs([tmp_path])[0])
    assert told[0].startswith("All runs: seed 0, 1; processor unknown; ")
    assert "precision float32" in told[0]
    assert told[1:] == ["The runs differ in device: NVIDIA H100; cpu."]


def test_the_same_runs_give_the_same_files(report: Path, tmp_path: Path) -> None:
    assert main(["report", str(report.parent / "runs"), "--out", str(tmp_path)]) == 0
    for file in report.rglob("*"):
        if file.is_file():
            assert (tmp_path / file.relative_to(report)).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "on which runs?"),
        (["nothing"], "folder nothing does not exist"),
        (["."], "there is no finished run below ."),
        ([str(EVIDENCE / "demo"), "--against", "teacher.source=x"], "no run has teacher.source=x"),
        (
            [str(EVIDENCE / "demo"), "--against", "run.seed=0"],
            "run.seed does not vary between these runs; what varies: teac",
        ),
        ([str(EVIDENCE / "demo"), "--against", "teacher.source=none,train"], "--against takes one value"),
        ([str(EVIDENCE / "demo"), str(EVIDENCE / "demo/../demo"), "--against", "x"], "'x' is not like"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
