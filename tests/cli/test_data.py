"""kdaug data, and the check of photos when training starts."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import assert_one_line
from support.copies import write_folder_with_copies
from support.recipes import PHOTOS_FLAGS

from kdaug.training import data_check

STUDENT = (*PHOTOS_FLAGS, "--teacher.source", "none", "--data.max-unreadable", "0.2", "--data.workers", "0")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with seven findings; read only."""
    root = tmp_path_factory.mktemp("data") / "photos"
    write_folder_with_copies(root)
    return root


def test_findings_are_printed_and_written(kdaug: Callable, photos: Path, tmp_path: Path) -> None:
    result = kdaug("data", photos, "--csv", tmp_path / "findings.csv")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0].startswith('2 classes with 7 (it\'s "x", y) to 11 (crème brûlée) training images')
    assert lines[-1] == f"7 finding(s) written to {tmp_path}/findings.csv"
    assert len(lines) == 7
    assert "validation: 6 images, from val/" in result.err
    text = (tmp_path / "findings.csv").read_bytes().decode("utf-8", "surrogateescape")
    assert len(list(csv.reader(text.splitlines()))) == 8


def test_the_report_is_one_json_object(kdaug: Callable, photos: Path) -> None:
    result = kdaug("data", photos, "--json")
    assert result.code == 0
    content = json.loads(result.out)
    assert (content["training_images"], content["validation_images"]) == (18, 6)
    assert [len(content[name]) for name in ("classes", "copies", "unreadable")] == [2, 5, 2]


def test_a_folder_without_findings(kdaug: Callable, shapes: Path) -> None:
    result = kdaug("data", shapes, "--data.val-fraction", "0.5")
    assert result.code == 0
    assert result.out == "3 classes with 6 training images each\n"


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("missing",), "image folder missing does not exist"),
        (("photos", "--data.val-fraction", "2"), "data.val_fraction is 2.0, but must be above 0 and below 1"),
        (("photos", "--csv", "no/folder.csv"), "--csv no/folder.csv is not a file in an existing folder"),
        (("photos", "--data.name", "cifar-10"), "invalid choice"),
    ],
)
def test_bad_input_is_one_line(kdaug: Callable, arguments: tuple[str, ...], fragment: str) -> None:
    result = kdaug("data", *arguments)
    assert result.code == 2
    assert_one_line(result.err, fragment)


def test_photos_are_checked_when_training_starts_and_not_when_it_resumes(
    kdaug: Callable, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    result = kdaug("train", "photos", *STUDENT, "--data.root", photos, "--run.dir", run)
    assert result.code == 0
    logged = [line for line in result.out.splitlines() if line.startswith("data: ")]
    assert sum("image(s) in training and validation (1 with equal bytes" in line for line in logged) == 1
    assert logged[-1] == f"data: all of them are listed in {run}/data-report.csv"
    content = json.loads((run / "data-report.json").read_bytes())
    assert len(content["copies"]) == 5
    assert (run / "data-report.csv").read_bytes().count(b"\n") == 8

    def fail(*_: object) -> None:
        raise AssertionError("checked again")

    monkeypatch.setattr(data_check, "make_report", fail)
    (run / "last.safetensors").unlink()
    (run / "data-report.json").unlink()
    assert kdaug("train", run, "--run.resume").code == 0, "the run goes on from its checkpoint"
    shutil.rmtree(run / "checkpoints")
    assert not (run / "data-report.json").exists()


def test_a_check_that_was_stopped_is_made_again(
    kdaug: Callable, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(data_check, "make_report", stop)
        result = kdaug("train", "photos", *STUDENT, "--data.root", photos, "--run.dir", run)
        assert result.code == 130
    result = kdaug("train", "photos", *STUDENT, "--data.root", photos, "--run.dir", run, "--run.resume")
    assert result.code == 0
    assert (run / "data-report.json").is_file()


def test_the_check_can_be_switched_off(kdaug: Callable, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = kdaug("train", "photos", *STUDENT, "--no-data.check", "--data.root", photos, "--run.dir", run)
    assert result.code == 0
    assert "data-report" not in result.out
    assert not (run / "data-report.json").exists()


def test_the_run_of_a_teacher_has_no_report(photos_run: Path) -> None:
    assert (photos_run / "data-report.json").is_file()
    (teacher,) = (photos_run.parent / "teachers").iterdir()
    assert not (teacher / "data-report.json").exists()
