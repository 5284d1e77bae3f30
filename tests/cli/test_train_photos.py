"""kdaug train photos: from a folder as a phone leaves it to a network in use, with a limit of time."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandResult, assert_one_line, call_kdaug
from support.images import bundled_photos, write_phone_photos
from support.recipes import PHOTOS_FLAGS
from support.runs import read_lines, weight_bytes

import kdaug as package
from kdaug.cli.recipe_arguments import settings_in_flags
from kdaug.config import read_recipe
from kdaug.photos import rules

SMALL = ("--student.name", "wide_resnet10_1", "--data.image-size", "32", "--data.workers", "0",
         "--run.device", "cpu", "--run.threads", "1", "--data.max-unreadable", "0.05")  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phone photos; read only."""
    return write_phone_photos(tmp_path_factory.mktemp("phone") / "my photos", bundled_photos())


@pytest.fixture
def _two_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than two epochs, however fast the machine."""
    lengths = {key: rules._Length(1, 2, 2) for key in rules._LENGTHS}
    monkeypatch.setattr(rules, "_LENGTHS", lengths)


@pytest.mark.usefixtures("_two_epochs")
def test_from_phone_photos_to_a_network_in_use(
    kdaug: Callable[..., CommandResult], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("train", "photos", "--data.root", photos, "--minutes", "10", *SMALL)
    result = kdaug(*command)
    assert (result.code, result.err) == (0, "")
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.name != "teachers")
    recipe = read_recipe(run / "recipe.yaml")
    (teacher,) = (tmp_path / "runs" / "teachers").iterdir()
    assert (recipe.optimization.epochs, recipe.teacher.epochs, recipe.optimization.optimizer) == (2, 2, "adamw")
    assert read_recipe(teacher / "recipe.yaml").optimization.epochs == 2
    assert len(read_lines(run, "step")) == len(read_lines(teacher, "step")) == 14  # 57 images in batches of 8

    assert "data.balance sample (chosen by auto): class Shirt has 1 training image(s)" in result.out
    expected = [
        "the student starts from random weights: timm has no published weights for wide_resnet10_1",
        "chosen for 57 training images, from scratch, CPU: optimization.global_batch 8, ",
        "estimated time from now: ",
        "data: 7 classes with 1 (Shirt) to 13 (T-shirt or top) training images",
        "data: 1 unreadable file(s), such as ",
        "data: 1 image(s) twice in one class and split (1 with equal bytes",
        "training the teacher first",
        "plain training (the teacher): error ",
        "student: error ",
        "gain of policy and teacher: ",
        "in brackets: 95 % intervals for 7 validation images, of one run each",
        "most frequent confusions: ",
        f"predict: kdaug predict runs/{run.name} PHOTO.jpg FOLDER",
        f"page: runs/{run.name}/index.html",
    ]
    positions = [result.out.find(part) for part in expected]
    assert min(positions) >= 0, expected[positions.index(min(positions))]
    assert positions == sorted(positions)
    errors = {kind: read_lines(path, "end")[0]["top1_error"] for kind, path in (("S", run), ("T", teacher))}
    assert f"student: error {errors['S']:.2f} % [" in result.out
    assert f"gain of policy and teacher: {errors['T'] - errors['S']:+.2f} points [" in result.out
    assert "Confusion matrix" in (run / "index.html").read_text()

    new = shutil.copytree(photos, tmp_path / "inbox")
    result = kdaug("predict", run, new, "--csv", "classes.csv", "--top", "2", "--device", "cpu")
    assert result.code == 1, "one file is broken"
    assert_one_line(result.err, "IMG_0002 broken.jpg")
    rows = list(csv.DictReader((tmp_path / "classes.csv").open()))
    assert len(rows) == 63
    assert {row["class_1"] for row in rows} <= {folder.name for folder in photos.iterdir()}
    assert kdaug("export", run, "--to", "timm", "--out", "exported").code == 0
    (top,) = package.load("exported", device="cpu").predict(rows[0]["path"], top=1)
    assert top[0][0] == rows[0]["class_1"]


@pytest.mark.usefixtures("_two_epochs")
def test_a_stopped_run_goes_on_with_the_chosen_settings(
    kdaug: Callable[..., CommandResult], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "a"
    command = ("train", "photos", "--data.root", photos, *SMALL, "--run.dir", run, "--minutes", "10")
    assert kdaug(*command).code == 0
    recipe, weights = (run / "recipe.yaml").read_text(), weight_bytes(run)
    refused = kdaug(*command)
    assert refused.code == 2
    assert "is a finished run; choose another --run.dir" in refused.err

    def fail(*arguments: Any) -> None:
        pytest.fail("settings are chosen again")

    for name in ("measure_run", "choose_start", "size_settings", "schedule_settings"):
        monkeypatch.setattr(f"kdaug.photos.plan.{name}", fail)
    for again in ((*command, "--run.resume"), ("train", run, "--run.resume")):
        (run / "last.safetensors").unlink()  # as if it had been stopped just before its end
        (run / "index.html").unlink()
        result = kdaug(*again)
        assert (result.code, result.err) == (0, "")
        assert (run / "recipe.yaml").read_text() == recipe
        assert weight_bytes(run) == weights
        assert "gain of policy and teacher: " in result.out
        assert (run / "index.html").is_file()
    assert len(list((tmp_path / "runs" / "teachers").iterdir())) == 1
    changed = kdaug(*command, "--run.resume", "--teacher.epochs", "5")
    assert changed.code == 2
    assert "was started with another recipe (teacher.epochs: 2 -> 5" in changed.err


def test_the_default_directory_follows_from_the_flags(
    kdaug: Callable[..., CommandResult], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(request: Any, console: Any) -> None:
        names.append(request.recipe.run.dir)
        raise KeyboardInterrupt

    names: list[str] = []
    monkeypatch.setattr("kdaug.photos.plan_recipe", stop)
    for flags in (
        (), ("--run.resume",), ("--minutes", "10"), ("--minutes", "11"), ("--optimization.epochs", "50"),
        ("--optimization.epochs", "51"), ("--run.dir", "x"),
    ):  # fmt: skip
        assert kdaug("train", "photos", "--data.root", photos, *SMALL, *flags).code == 130
    assert all(re.fullmatch("runs/photos-[0-9a-f]{10}-[0-9a-f]{4}", name) for name in names[:-1])
    assert names[0] == names[1]
    assert len(set(names)) == 6, "also --optimization.epochs 50, which is the recipe's own"
    assert names[-1] == "x"


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("photos", "--minutes", "5", "--optimization.epochs", "3"), ("--minutes and --optimization.epochs are both",)),
        (("photos", "--minutes", "0"), ("minutes is 0.0, but must be above 0",)),
        (("photos", "--minutes", "soon"), ("--minutes",)),
        (("demo", "--minutes", "5"), ("--minutes is for the recipe photos; set --optimization.epochs instead",)),
        (
            ("photos", "--minutes", "0.001"),
            ("--minutes 0.001 is too short: one epoch", "minutes here; use --minutes 0.", "--data.image-size"),
        ),
    ],
)
def test_limits_that_cannot_work_are_one_line(
    kdaug: Callable[..., CommandResult], photos: Path, tmp_path: Path, arguments: tuple[str, ...], fragments: Any
) -> None:
    flags = () if arguments[0] == "demo" else ("--data.root", photos, *SMALL, "--teacher.source", "none")
    result = kdaug("train", *arguments, *flags, "--run.dir", tmp_path / "run")
    assert result.code == 2
    assert_one_line(result.err, *fragments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--optimization.global-batch", "8"], {"optimization.global_batch"}),
        (["--optimization.global_batch=8", "--data.root", "a.b"], {"optimization.global_batch", "data.root"}),
        (["--no-student.pretrained"], {"student.pretrained"}),
        (["--student.no-pretrained", "--run.resume"], {"student.pretrained", "run.resume"}),
        (["--optimization.ema-decay", "None"], {"optimization.ema_decay"}),
        ([], set()),
    ],
)
def test_given_settings_are_those_of_the_flags(flags: list[str], names: set[str]) -> None:
    assert settings_in_flags(flags) == names


def test_a_recipe_file_for_photos_ends_with_the_comparison_too(
    capfd: pytest.CaptureFixture[str], photos_run: Path
) -> None:
    run = photos_run.with_name("again")
    result = call_kdaug(capfd, "train", photos_run / "recipe.yaml", "--run.dir", run)
    assert result.code == 0
    assert "gain of policy and teacher: " in result.out
    assert json.loads((run / "data-report.json").read_text())["training_images"] == 33
    assert PHOTOS_FLAGS[1] in result.out
