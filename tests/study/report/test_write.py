"""Reports on the runs in results/: all files agree, and the page needs no network."""

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
from support.browser import needs_chromium, open_on_phone

from kdaug.cli.main import main
from kdaug.config import read_recipe
from kdaug.recipes import RECIPES
from kdaug.study.report.compare import group_runs
from kdaug.study.report.finished import find_finished_runs
from kdaug.study.report.notes import describe_machines, describe_teachers, report_notes
from kdaug.training.resolve import teacher_run_names

EVIDENCE = Path(__file__).parents[3] / "results"
DEMO = EVIDENCE / "demo/seed-0"
SMALL = RECIPES["table1-small"].make()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two magnitudes, each without and with teacher, and on an unfinished run."""
    folder = tmp_path_factory.mktemp("report")
    for magnitude in (0, 4):
        for kind in ("", "-kd"):
            shutil.copytree(run_of(magnitude, kind), folder / "runs" / f"m{magnitude}{kind}")
    shutil.copytree(folder / "runs/m0-kd", folder / "runs/unfinished")
    metrics = folder / "runs/unfinished/metrics.jsonl"
    metrics.write_text("".join(line for line in metrics.open() if '"end"' not in line))
    assert main(["report", str(folder / "runs"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def run_of(magnitude: int, kind: str) -> Path:
    """A run in results/, without teacher (kind "") or with it ("-kd")."""
    return EVIDENCE / "table1-bundled" / f"cifar100-table1-m{magnitude}{kind}_seed=0"


def end_line(run: Path) -> dict:
    """The last line of the metrics of a run."""
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def test_table_has_the_errors_and_gains_of_the_runs(report: Path) -> None:
    table = (report / "report.md").read_text().partition("## All runs")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line[:1] == "|"]
    assert rows[0][:3] == ["views.magnitude", "teacher.source", "error, %"]
    errors = {(row[0], row[1]): float(row[2]) for row in rows[2:]}
    for magnitude in (0, 4):
        label_only, with_teacher = (end_line(run_of(magnitude, kind))["top1_error"] for kind in ("", "-kd"))
        assert errors[str(magnitude), "none"] == pytest.approx(label_only, abs=0.005)
        assert errors[str(magnitude), "train"] == pytest.approx(with_teacher, abs=0.005)
        (gain,) = [row[-1] for row in rows[2:] if row[:2] == [str(magnitude), "train"]]
        assert float(gain) == pytest.approx(label_only - with_teacher, abs=0.005)
    assert len(errors) == 4, "teachers are left out"


def test_csv_and_json_agree(report: Path) -> None:
    lines = list(csv.DictReader((report / "runs.csv").open()))
    groups = json.loads((report / "report.json").read_text())["groups"]
    assert len(lines) == 4
    for group in groups:
        (line,) = [line for line in lines if line["run"] == group["runs"][0]["run"]]
        assert (
            float(line["top1_error"]) == group["error"] == statistics.fmean(run["top1_error"] for run in group["runs"])
        )
        assert line["teacher.source"] == group["settings"]["teacher.source"]


def test_page_needs_no_other_file(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count("data:image/svg+xml;base64,") == 2
    assert "<h2>Training curves</h2>" in page
    assert "thin dotted lines: error on the training images." in page
    for name in ("curves", "error-views.magnitude"):
        assert (report / f"figures/{name}.svg").read_bytes().startswith(b"<?xml")
        assert (report / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_measures_on_fixed_views_are_averaged_over_seeds(tmp_path: Path) -> None:
    cell = "section34-bundled/cifar100-wide_resnet28_10"
    plain, taught = ([EVIDENCE / f"{cell}-{kind}_seed={s}" for s in (0, 1, 2)] for kind in ("autoaugment", "kd"))
    assert main(["report", *map(str, [*plain, *taught]), "--out", str(tmp_path)]) == 0
    table = (tmp_path / "report.md").read_text().partition("## On the fixed augmented views")[2].partition("##")[0]
    header, _, *rows = [line.strip("|").split("|") for line in table.splitlines() if line[:1] == "|"]
    by_source = {row[0].strip(): dict(zip(map(str.strip, header), map(str.strip, row), strict=True)) for row in rows}
    names = {"view_past_recognition": "past recognition, %", "view_calibration_error": "calibration error, %"}
    for name, column in names.items():
        values = [last_evaluation(run)[name] for run in taught]
        assert float(by_source["train"][column]) == pytest.approx(statistics.fmean(values), abs=0.005)
    assert by_source["none"]["past recognition, %"] == ""
    assert (tmp_path / "figures/views.svg").is_file()


def last_evaluation(run: Path) -> dict:
    """The last line of kind "eval" in the metrics of a run."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "eval"][-1]


@needs_chromium
def test_wide_tables_scroll_in_their_own_box(report: Path) -> None:
    with open_on_phone(report / "index.html") as page:
        box = page.get_by_role("region", name="Comparison")
        assert box.evaluate("box => box.scrollWidth > box.clientWidth")


def test_notes_name_images_settings_and_machines(report: Path) -> None:
    for text in ((report / "report.md").read_text(), (report / "index.html").read_text()):
        assert "test images. Do not choose settings by them" in text
        assert (
            "Settings common to all runs: data.name=omniglot, data.train_images=1210, student.name=wide_resnet10_1"
            in text
        )
        assert "unfinished is not finished" in text
        assert re.search("All runs: seed 0; device cpu; processor Intel.* Xeon.*; packages kdaug 0", text)


def test_runs_on_other_images_are_not_averaged(write_run_files: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["photos"].make()
    for seed, content in enumerate(("aaaa", "bbbb")):
        write_run_files(tmp_path / f"{seed}", replace(recipe, run=replace(recipe.run, seed=seed)), 50.0)
        (tmp_path / f"{seed}/environment.json").write_text(json.dumps({"data": content}))
    groups = group_runs(find_finished_runs([tmp_path])[0])
    assert [(group.varied, len(group.runs)) for group in groups] == [
        ({"data.content": "aaaa"}, 1),
        ({"data.content": "bbbb"}, 1),
    ]
    notes = " ".join(report_notes(groups, []))
    assert "Do not compare" in notes
    assert "500 validation images" in notes


def test_held_out_images_may_choose_settings(write_run_files: Callable, tmp_path: Path) -> None:
    write_run_files(tmp_path / "run", replace(SMALL, data=replace(SMALL.data, holdout=0.1)), 50.0)
    notes = " ".join(report_notes(group_runs(find_finished_runs([tmp_path])[0]), []))
    assert "Errors are measured on 500 held-out images." in notes
    assert "Do not choose settings" not in notes


def test_the_note_on_images_counts_unused_training_images(write_run_files: Callable, tmp_path: Path) -> None:
    data = replace(SMALL.data, holdout=0.1, train_images=100, measure_unused=True)
    write_run_files(tmp_path / "run", replace(SMALL, data=data), 50.0)
    notes = " ".join(report_notes(group_runs(find_finished_runs([tmp_path])[0]), []))
    assert "Errors are measured on 500 test images and unused training images." in notes
    assert "Do not choose settings" in notes


def test_notes_have_the_error_of_the_teacher(write_run_files: Callable, tmp_path: Path) -> None:
    write_run_files(tmp_path / "run", SMALL, 50.0)
    teacher = tmp_path / "teachers" / teacher_run_names(read_recipe(tmp_path / "run/recipe.yaml"))[0]
    assert describe_teachers(find_finished_runs([tmp_path])[0]) == []
    write_run_files(teacher, SMALL, 33.3)
    assert describe_teachers(find_finished_runs([tmp_path])[0]) == [f"Teacher {teacher.name} has an error of 33.30 %."]


def test_left_out_runs_are_printed_and_noted(
    write_run_files: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run_files(tmp_path / "runs/one", SMALL, 50.0)
    write_run_files(tmp_path / "runs/two", SMALL, 50.0, finished=False)
    (tmp_path / "runs/failed.json").write_text('{"three": "out of memory"}')
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    err = capsys.readouterr().err
    assert f"left out: {tmp_path}/runs/two is not finished\n" in err
    assert f"left out: {tmp_path}/runs/three failed: out of memory\n" in err
    content = json.loads((tmp_path / "out/report.json").read_text())
    assert f"Left out: {tmp_path}/runs/three failed: out of memory." in content["notes"]
    assert content["same_in_all"]["student.name"] == "wide_resnet10_1"


def test_run_that_failed_and_then_finished_is_included(write_run_files: Callable, tmp_path: Path) -> None:
    write_run_files(tmp_path / "runs/sweep/one", SMALL, 50.0)
    (tmp_path / "runs/sweep/failed.json").write_text('{"one": "no luck", "two": "out of memory"}')
    for folder in ("runs", "runs/sweep"):
        runs, left_out = find_finished_runs([tmp_path / folder])
        assert [run.path.name for run in runs] == ["one"]
        assert left_out == [f"{tmp_path}/runs/sweep/two failed: out of memory"]
    assert find_finished_runs([tmp_path / "runs/sweep/one"])[1] == [], "failures of other runs in the sweep"


def test_damaged_teacher_is_a_note(write_run_files: Callable, tmp_path: Path) -> None:
    write_run_files(tmp_path / "run", SMALL, 50.0)
    teacher = tmp_path / "teachers" / teacher_run_names(read_recipe(tmp_path / "run/recipe.yaml"))[0]
    teacher.mkdir(parents=True)
    (teacher / "recipe.yaml").write_text("views: [")
    (teacher / "metrics.jsonl").write_text('{"kind": "end"}\n{"kind": "end"}\n')
    (note,) = describe_teachers(find_finished_runs([tmp_path / "run"])[0])
    assert note.startswith(f"Teacher {teacher.name} cannot be read: ")


def test_run_resumed_on_another_device_is_noted(write_run_files: Callable, tmp_path: Path) -> None:
    write_run_files(tmp_path / "run", SMALL, 50.0)
    environment = {"device": "cpu", "precision": "float32", "resumed": [{"step": 9, "device": "NVIDIA H100"}]}
    (tmp_path / "run/environment.json").write_text(json.dumps(environment))
    notes = describe_machines(find_finished_runs([tmp_path])[0])
    assert notes[1:] == ["The runs differ in device: NVIDIA H100; cpu."]


def test_seeds_are_one_json_group_and_several_csv_lines(write_run_files: Callable, tmp_path: Path) -> None:
    errors = {(0, 0): 50.0, (1, 1): 53.0, (1, 0): 52.0}
    for (seed, views_seed), error in errors.items():
        changed = replace(SMALL, run=replace(SMALL.run, seed=seed), views=replace(SMALL.views, seed=views_seed))
        write_run_files(tmp_path / f"runs/{seed}{views_seed}", changed, error)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    lines = list(csv.DictReader((tmp_path / "out/runs.csv").open()))
    assert {(int(x["run.seed"]), int(x["views.seed"])): float(x["top1_error"]) for x in lines} == errors
    (group,) = json.loads((tmp_path / "out/report.json").read_text())["groups"]
    assert group["error"] == pytest.approx(155 / 3)
    assert group["deviation"] == pytest.approx(statistics.stdev(errors.values()))
    rows = (tmp_path / "out/report.md").read_text().partition("## All runs")[2].splitlines()
    assert sorted(row.strip("| ").split(" | ")[0] for row in rows[4:] if row) == ["0", "1", "1 (views 0)"]


def test_text_of_runs_is_escaped_on_the_page(write_run_files: Callable, tmp_path: Path) -> None:
    recipe = RECIPES["photos"].make()
    for name in ("a", "b"):
        root = f"{name}<script>alert(1)</script>"
        write_run_files(tmp_path / f"runs/{name}", replace(recipe, data=replace(recipe.data, root=root)), 50.0)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out/index.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_differences_between_machines_are_noted(write_run_files: Callable, tmp_path: Path) -> None:
    for seed, device in enumerate(("cpu", "NVIDIA H100")):
        write_run_files(tmp_path / f"{seed}", replace(SMALL, run=replace(SMALL.run, seed=seed)), 50.0)
        (tmp_path / f"{seed}/environment.json").write_text(json.dumps({"device": device, "precision": "float32"}))
    notes = describe_machines(find_finished_runs([tmp_path])[0])
    assert notes[0].startswith("All runs: seed 0, 1; processor unknown; ")
    assert "precision float32" in notes[0]
    assert notes[1:] == ["The runs differ in device: NVIDIA H100; cpu."]


def test_same_runs_give_the_same_files(report: Path, tmp_path: Path) -> None:
    assert main(["report", str(report.parent / "runs"), "--out", str(tmp_path)]) == 0
    for file in report.rglob("*"):
        if file.is_file():
            assert (tmp_path / file.relative_to(report)).read_bytes() == file.read_bytes(), file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no runs to report on"),
        (["nothing"], "folder nothing does not exist"),
        (["."], "there is no finished run below ."),
        ([str(DEMO), "--against", "teacher.source=x"], "no run has teacher.source=x"),
        (
            [str(DEMO), "--against", "run.seed=0"],
            "run.seed does not vary between these runs; settings that vary: views.policy, views.magnitude",
        ),
        ([str(DEMO), "--against", "teacher.source=none,train"], "--against has several values"),
        (
            [str(DEMO), str(DEMO / "../seed-0"), "--against", "x"],
            "'x' is not a setting with values",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
