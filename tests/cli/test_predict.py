"""kdaug predict: what it prints and writes for real images, and how it reports those that cannot be read."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import assert_one_line

import kdaug as package
from kdaug.inference import evaluation_of_run

CPU = ("--device", "cpu")
UNREADABLE = re.compile(r"kdaug: (.+) cannot be read \((.+)\)")


def predicted(path: Path) -> list[tuple[str, list[tuple[str, float]]]]:
    """(path, [(class, probability), ...]) of each image in a JSON file; it has no other fields."""
    content = json.loads(path.read_text(encoding="utf-8"))
    assert all(set(image) == {"path", "top"} for image in content)
    assert all(set(each) == {"class", "probability"} for image in content for each in image["top"])
    return [(image["path"], [(each["class"], each["probability"]) for each in image["top"]]) for image in content]


def rows_of(path: Path) -> list[list[Any]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


def test_predictions_are_those_of_eval(kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path) -> None:
    evaluation = evaluation_of_run(photos_run, "last", None, "cpu", None)
    rows = evaluation.predictions.rows.tolist()
    files = [str(evaluation.images.files[row]) for row in rows]
    result = kdaug("predict", photos_run, *files, "--json", tmp_path / "out.json", *CPU)
    assert (result.code, result.err) == (0, "")
    names = [evaluation.classes[index] for index in evaluation.predictions.predicted]
    expected = list(zip(files, names, evaluation.predictions.confidence.tolist(), strict=True))
    assert [(path, *top[0]) for path, top in predicted(tmp_path / "out.json")] == expected


def test_a_folder_is_predicted_into_table_and_files(
    kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv", tmp_path / "out.json"
    result = kdaug("predict", photos_run, shapes, "--csv", out[0], "--json", out[1], "--top", "2", *CPU)
    assert (result.code, result.err) == (0, "")
    files = sorted(map(str, shapes.rglob("*.jpg")))
    expected = package.load(photos_run, "cpu").predict(files, top=2)
    assert predicted(out[1]) == list(zip(files, expected, strict=True))
    header, *rows = rows_of(out[0])
    assert header == ["path", "class_1", "probability_1", "class_2", "probability_2"]
    assert [(row[0], [(row[1], float(row[2])), (row[3], float(row[4]))]) for row in rows] == predicted(out[1])
    lines = result.out.splitlines()
    assert lines[0].split() == ["image", "class", "probability", "then"]
    assert len(lines) == 1 + 20 + 3
    (first, second), line = expected[0], lines[1]
    assert line.split()[0] == files[0]
    assert f"{first[0]} " in line
    assert f"{100 * first[1]:.1f} %  {second[0]} {100 * second[1]:.1f} %" in line
    assert lines[-3:] == [
        "and 16 more", f"36 predictions written to {out[0]}", f"36 predictions written to {out[1]}",
    ]  # fmt: skip


def test_without_a_file_the_whole_table_is_printed(kdaug: Callable, photos_run: Path, shapes: Path) -> None:
    """Also on a narrow terminal, without cutting paths."""
    result = kdaug("predict", photos_run, shapes, *CPU)
    assert result.code == 0
    printed = [line.split()[0] for line in result.out.splitlines()[1:]]
    assert printed == sorted(map(str, shapes.rglob("*.jpg")))


def test_top_may_exceed_the_number_of_classes(kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path) -> None:
    image = shapes / "disc" / "00.jpg"
    assert kdaug("predict", photos_run, image, "--top", "99", "--json", tmp_path / "out.json", *CPU).code == 0
    ((_, top),) = predicted(tmp_path / "out.json")
    assert {name for name, _ in top} == {"cross", "disc", "square"}
    assert sum(probability for _, probability in top) == pytest.approx(1)
    assert top == sorted(top, key=lambda pair: -pair[1])


def test_patterns_weight_files_and_batches(kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path) -> None:
    run = photos_run / "best.safetensors"
    arguments = [f"{shapes}/**/0[12].jpg", "--batch", "2", "--json", tmp_path / "out.json", *CPU]
    assert kdaug("predict", run, *arguments).code == 0
    files = sorted(map(str, shapes.rglob("0[12].jpg")))
    assert predicted(tmp_path / "out.json") == list(
        zip(files, package.load(run, "cpu").predict(files, batch=2), strict=True)
    )


def test_gray_runs_predict_photos(kdaug: Callable, demo_run: Path, shapes: Path) -> None:
    result = kdaug("predict", demo_run, shapes / "disc", *CPU)
    assert (result.code, result.err) == (0, "")
    assert len(result.out.splitlines()) == 13


def test_unreadable_images_are_reported_and_the_others_predicted(
    kdaug: Callable, photos_run: Path, shapes_copy: Path, tmp_path: Path
) -> None:
    (shapes_copy / "disc" / "00.jpg").write_text("text")
    truncated = shapes_copy / "disc" / "01.jpg"
    truncated.write_bytes(truncated.read_bytes()[:300])
    (shapes_copy / "disc" / "02.jpg").write_bytes(b"")
    (shapes_copy / "disc" / "two\nlines.png").touch()
    (shapes_copy / "notes.txt").touch()
    missing = tmp_path / "missing.jpg"
    flags = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv", "--batch", "4", *CPU]
    result = kdaug("predict", photos_run, shapes_copy, missing, tmp_path / "x*.png", *flags)
    assert result.code == 1
    passed_over, *lines = result.err.splitlines()
    assert passed_over == "passed over: 1 .txt"
    reported = {match[1]: match[2] for line in lines if (match := UNREADABLE.fullmatch(line))}
    assert len(reported) == len(lines)
    assert list(reported) == [
        str(missing), f"{tmp_path}/x*.png", *(f"{shapes_copy}/disc/{name}.jpg" for name in ("00", "01", "02")),
        f"{shapes_copy}/disc/two\\nlines.png",
    ]  # fmt: skip
    assert reported[str(missing)] == "no such file"
    readable = sorted(set(map(str, shapes_copy.rglob("*.jpg"))) - set(reported))
    assert [path for path, _ in predicted(tmp_path / "out.json")] == readable
    assert len(rows_of(tmp_path / "out.csv")) == 1 + len(readable) == 34


def test_if_no_image_can_be_read_the_files_are_empty(kdaug: Callable, photos_run: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    result = kdaug("predict", photos_run, tmp_path / "a.jpg", "--json", tmp_path / "out.json", *CPU)
    assert (result.code, result.err.count("\n")) == (1, 1)
    assert predicted(tmp_path / "out.json") == []
    assert result.out == f"0 predictions written to {tmp_path}/out.json\n"


def test_names_of_any_bytes_are_kept(kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path) -> None:
    """And cannot change the terminal, or be read as markup."""
    folder = tmp_path / "photos"
    folder.mkdir()
    names = [b"\xff.jpg", b"[red]x.jpg", b'a,"b".jpg', b"\x1b[31m.jpg", "ünï 猫.jpg".encode()]
    for name in names:
        shutil.copy(shapes / "disc" / "00.jpg", os.fsencode(folder) + b"/" + name)
    flags = ["--json", tmp_path / "out.json", "--csv", tmp_path / "out.csv", *CPU]
    result = kdaug("predict", photos_run, folder, *flags)
    assert (result.code, result.err) == (0, "")
    expected = sorted(os.fsencode(folder) + b"/" + name for name in names)
    assert sorted(os.fsencode(path) for path, _ in predicted(tmp_path / "out.json")) == expected
    assert sorted(os.fsencode(row[0]) for row in rows_of(tmp_path / "out.csv")[1:]) == expected
    assert "\x1b" not in result.out
    assert all(shown in result.out for shown in ("[red]x.jpg", r"\x1b[31m.jpg", r"\udcff.jpg", "ünï 猫.jpg"))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["{run}"], "no images to predict; give files, folders or patterns after the run"),
        (["{nothing}", "x.jpg"], "nothing does not exist; give a run directory, a weight file that kdaug wrote"),
        (["{shapes}", "x.jpg"], "has neither recipe.yaml nor config.json"),
        (
            ["{run}", "x.jpg", "--csv", "{nothing}/out.csv"],
            "--csv {nothing}/out.csv is not a file in an existing folder",
        ),
        (["{run}", "x.jpg", "--json", "{shapes}"], "--json {shapes} is not a file in an existing folder"),
        (["{run}", "{shapes}", "--top", "0"], "top is 0, but must be at least 1"),
        (["{run}", "{shapes}", "--batch", "0"], "batch is 0, but must be at least 1"),
        (["{run}", "{shapes}", "--device", "nothing"], "nothing cannot be used"),
        (["{run}", "{shapes}", "--topp", "3"], "did you mean --top?"),
    ],
)
def test_bad_arguments_are_one_line(
    kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    places = {"run": photos_run, "shapes": shapes, "nothing": tmp_path / "nothing"}
    result = kdaug("predict", *(argument.format(**places) for argument in arguments))
    assert (result.code, result.out) == (2, "")
    assert_one_line(result.err, problem.format(**places))


def test_an_unfinished_run_names_its_best_weights(kdaug: Callable, photos_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(photos_run, tmp_path / "run")
    (run / "last.safetensors").unlink()
    result = kdaug("predict", run, "x.jpg")
    assert result.code == 2
    assert_one_line(result.err, f"{run} is not finished", "--run.resume", f"{run}/best.safetensors")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_files_are_written_whole_or_not_at_all(
    kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "out.json").write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    result = kdaug("predict", photos_run, shapes, "--json", tmp_path / "out.json", *CPU)
    assert result.code == (2 if isinstance(error, OSError) else 130)
    assert (tmp_path / "out.json").read_text() == "old"
