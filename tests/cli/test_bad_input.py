"""Bad input: exit code 2, one line on stderr, no traceback, no files written."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image
from support.commands import assert_one_line
from support.recipes import DEMO_FLAGS, PHOTOS_FLAGS

from kdaug.networks import create_network

DEMO = "train demo {demo_flags} --teacher.source none --run.dir {tmp}/new"
PHOTOS = "train photos {photos_flags} --teacher.source none --run.dir {tmp}/new"

# name -> command line with the names of `paths`, parts of the error message
CASES = {
    "missing folder": (f"{PHOTOS} --data.root {{tmp}}/nowhere", "image folder {tmp}/nowhere does not exist"),
    "empty folder": (f"{PHOTOS} --data.root {{tmp}}/empty", "{tmp}/empty has no images"),
    "folder is a file": (f"{PHOTOS} --data.root {{tmp}}/file", "image folder {tmp}/file does not exist"),
    "one class": (f"{PHOTOS} --data.root {{tmp}}/one-class", "one class only (disc)"),
    "one image of each class": (f"{PHOTOS} --data.root {{tmp}}/lonely", "every class has only one image"),
    "missing data set": (f"{DEMO} --data.name cifar-100 --data.root {{tmp}}/empty", "cifar-100 is not in {tmp}/empty"),
    "too many images": (f"{DEMO} --data.train-images 10001", "data.train_images is 10001, but bundled has"),
    "batch larger than the data": (f"{DEMO} --optimization.global-batch 257", "but there are 256 training images"),
    "negative weight": (f"{DEMO} --supervision.weight -0.5", "supervision.weight is -0.5, but must be at least 0"),
    "K below 1": (f"{DEMO} --supervision.k 0", "supervision.k is 0, but must be at least 1"),
    "T of 0": (f"{DEMO} --supervision.temperature 0", "supervision.temperature is 0.0, but must be above 0"),
    "T not finite": (f"{DEMO} --supervision.temperature nan", "temperature is nan, but must be a finite number"),
    "unknown command": ("trian demo", "there is no command 'trian'; did you mean train?"),
    "unknown recipe": ("train dmeo", "there is no recipe 'dmeo'", "did you mean demo?"),
    "no recipe": ("train", "a recipe is missing"),
    "flag before the recipe": ("train --run.seed 1 demo", "the recipe comes first"),
    "unknown recipe to show": ("recipes show dmeo", "did you mean demo?"),
    "unknown words for recipes": ("recipes delete demo", "no recipe has delete and demo in its name"),
    "flag one letter short": (f"{DEMO} --optimization.epoch 2", "did you mean --optimization.epochs?"),
    "unsupported drop-path": (f"{DEMO} --student.drop-path 0.2", "wide_resnet10_1 does not support student.drop_path"),
    "milestones of another schedule": (
        f"{DEMO} --optimization.milestones 1",
        "no effect with optimization.schedule cosine",
        "set --optimization.schedule to",
    ),
    "empty directory name": ("train demo --run.dir=", "run.dir is '', but must be at least 1 character(s) long"),
    "unknown network": (f"{DEMO} --student.name wide_resnet16_3", "did you mean wide_resnet16_"),
    "unknown teacher network": (
        f"{DEMO} --teacher.source train --teacher.network wide_resnet16_3",
        "did you mean wide_resnet16_",
    ),
    "unknown policy": (f"{DEMO} --views.policy randaugmnet-n2-m9", "there is no policy 'randaugmnet-n2-m9'"),
    "unknown space": (f"{DEMO} --views.policy randaugment-n2-m5@paper-geometrc", "did you mean paper-geometric?"),
    "magnitude too large": (f"{DEMO} --views.magnitude 11", "the magnitude is 11, but must be from 0 to 10"),
    "unknown teacher source": (f"{DEMO} --teacher.source rum:x", "teacher.source is 'rum:x'", "run:DIR"),
    "network that cannot take the images": (
        f"{DEMO} --student.name vit_tiny_patch16_224",
        "network vit_tiny_patch16_224 cannot take 2 image(s) of 28x28 pixels",
    ),
    "teacher to train that cannot take the images": (
        f"{DEMO} --teacher.source train --teacher.network vit_tiny_patch16_224",
        "network vit_tiny_patch16_224 cannot take 2 image(s) of 28x28 pixels",
    ),
    "a batch of one for a network that needs two": (
        f"{DEMO} --student.name resnet18 --optimization.global-batch 1",
        "network resnet18 cannot take 1 image(s) of 28x28 pixels",
    ),
    "device without memory": (f"{DEMO} --run.device meta", "run.device meta cannot be used"),
    "cutout beyond any image": (f"{DEMO} --views.cutout 100000000000000000", "must be from 0 to 16384"),
    "padding beyond any image": (f"{DEMO} --views.pad 5000000000", "must be from 0 to 16384"),
    "unknown device": (f"{DEMO} --run.device gpu", "run.device gpu cannot be used"),
    "teacher run missing": (f"{DEMO} --teacher.source run:{{tmp}}/nowhere", "folder {tmp}/nowhere does not exist"),
    "teacher file missing": (f"{DEMO} --teacher.source file:{{tmp}}/none.pt", "{tmp}/none.pt does not exist"),
    "teacher file is text": (f"{DEMO} --teacher.source file:{{tmp}}/file", "{tmp}/file is not a weight file"),
    "teacher file is a picture": (f"{DEMO} --teacher.source file:{{tmp}}/a.png", "{tmp}/a.png is not a weight file"),
    "teacher file is damaged": (
        f"{DEMO} --teacher.source file:{{tmp}}/damaged.safetensors",
        "{tmp}/damaged.safetensors is not a weight file",
    ),
    "teacher run of other classes": (f"{DEMO} --teacher.source run:{{photos_run}}", "3 classes, but the data have 10"),
    "teacher file of other classes": (
        f"{DEMO} --teacher.source file:{{tmp}}/three.safetensors",
        "is for 3 classes, but the data have 10",
    ),
    "teacher file of another network": (
        f"{DEMO} --teacher.source file:{{tmp}}/other.safetensors",
        "other.safetensors",
        "is it of another network?",
    ),
    "teacher without weights in timm": (f"{DEMO} --teacher.source timm:wide_resnet10_1", "no published weights"),
    "existing run": ("train demo {demo_flags} --run.dir {demo_run}", "{demo_run} is a finished run; choose another"),
    "resumed with another recipe": (
        "train demo {demo_flags} --run.resume --run.dir {demo_run}",
        "{demo_run} was started with another recipe",
        "optimization.epochs: 2 -> 1",
    ),
    "directory of something else": (f"{DEMO} --run.dir {{tmp}}/one-class", "is not a run directory"),
    "directory inside a file": (f"{DEMO} --run.dir {{tmp}}/file/run", "{tmp}/file/run cannot be written"),
    "recipe file missing": ("train {tmp}/none.yaml", "recipe {tmp}/none.yaml does not exist"),
    "recipe is a folder": ("train {tmp}/empty", "recipe {tmp}/empty/recipe.yaml does not exist"),
    "recipe is a picture": ("train {tmp}/picture.yaml", "{tmp}/picture.yaml cannot be read: it is not UTF-8 text"),
    "run directory of too long a name": (f"{DEMO} --run.dir {{tmp}}/{'x' * 300}", "File name too long"),
    "recipe is empty": ("train {tmp}/nothing.yaml", "recipe {tmp}/nothing.yaml is empty"),
    "misspelt key": ("train {tmp}/misspelt.yaml", "views.polcy is not a setting; did you mean views.policy?"),
    "wrong type": ("train {tmp}/type.yaml", "optimization.epochs must be a whole number"),
    "not YAML": ("train {tmp}/broken.yaml", "not readable as plain YAML"),
    "eval of nothing": ("eval {tmp}/nowhere", "{tmp}/nowhere is not a run directory"),
}  # fmt: skip


@pytest.fixture
def paths(tmp_path: Path, shapes: Path, demo_run: Path, photos_run: Path) -> dict[str, str]:
    """Invalid folders and files, by their names in CASES."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    shutil.copytree(shapes / "disc", tmp_path / "one-class" / "disc")
    for name in ("disc", "ring"):
        (tmp_path / "lonely" / name).mkdir(parents=True)
        shutil.copy(shapes / "disc" / "00.jpg", tmp_path / "lonely" / name)
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    shutil.copy(tmp_path / "a.png", tmp_path / "picture.yaml")
    (tmp_path / "nothing.yaml").write_text("# nothing\n")
    (tmp_path / "misspelt.yaml").write_text("views:\n  polcy: none\n")
    (tmp_path / "type.yaml").write_text("optimization:\n  epochs: many\n")
    (tmp_path / "broken.yaml").write_text("views: {policy: [none")
    three = create_network("wide_resnet10_1", 3, 1).state_dict()
    safetensors.torch.save_file(three, tmp_path / "three.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes((tmp_path / "three.safetensors").read_bytes()[:5000])
    safetensors.torch.save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    return {
        "tmp": str(tmp_path), "demo_run": str(demo_run), "photos_run": str(photos_run),
        "demo_flags": " ".join(DEMO_FLAGS), "photos_flags": " ".join(PHOTOS_FLAGS),
    }  # fmt: skip


def content(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_writes_nothing(
    kdaug: Callable, paths: dict[str, str], tmp_path: Path, demo_run: Path, case: str
) -> None:
    command, *fragments = (text.format(**paths) for text in CASES[case])
    before = content(tmp_path), content(demo_run)
    result = kdaug(*command.split())
    assert_one_line(result.err, *fragments)
    assert result.code == 2
    assert (content(tmp_path), content(demo_run)) == before
    assert not (tmp_path / "new").exists()


def test_too_many_unreadable_images_stop_the_run(kdaug: Callable, shapes_copy: Path) -> None:
    for number in range(4):
        (shapes_copy / "disc" / f"{number:02}.jpg").write_bytes(b"\xff\xd8\xff")
    flags = ["--data.root", shapes_copy, "--teacher.source", "none", "--run.dir", shapes_copy.with_name("run")]
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *flags)
    assert result.code == 2
    assert_one_line(result.err, f"unreadable, first {shapes_copy}/disc/0", "data.max_unreadable 0.01")
    for number in range(4):
        (shapes_copy / "disc" / f"{number:02}.jpg").unlink()
    assert kdaug("train", "photos", *PHOTOS_FLAGS, *flags).code == 0, "the same command starts again"


def test_without_a_check_too_many_unreadable_images_stop_training(kdaug: Callable, shapes_copy: Path) -> None:
    for number in range(4):
        (shapes_copy / "disc" / f"{number:02}.jpg").write_bytes(b"\xff\xd8\xff")
    flags = ["--data.root", shapes_copy, "--teacher.source", "none", "--run.dir", shapes_copy.with_name("run")]
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *flags, "--no-data.check")
    assert result.code == 2
    assert_one_line(result.err, f"unreadable, first {shapes_copy}/disc/0", "data.max_unreadable 0.01")
    assert re.search(r"unreadable image left out: \S+/disc/0\d.jpg", result.out)


def test_unreadable_validation_images_stop_the_run(kdaug: Callable, shapes_copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    shutil.copytree(shapes_copy, root / "train")
    for name in ("disc", "square"):
        (root / "val" / name).mkdir(parents=True)
        (root / "val" / name / "a.jpg").write_bytes(b"\xff\xd8\xff")
    flags = ["--data.root", root, "--teacher.source", "none", "--run.dir", tmp_path / "run"]
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *flags, "--data.max-unreadable", "1")
    assert result.code == 2
    assert_one_line(result.err, "unreadable")


def test_a_non_finite_loss_stops_the_run(kdaug: Callable, tmp_path: Path) -> None:
    flags = ["--teacher.source", "none", "--optimization.learning-rate", "1e30", "--run.dir", tmp_path / "run"]
    result = kdaug("train", "demo", *DEMO_FLAGS, *flags)
    assert result.code == 2
    assert_one_line(result.err, "(epoch 0)", "lower --optimization.learning-rate")
    assert re.search(r"the loss is (nan|inf) at step [2-4] ", result.err)
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_a_corrected_command_works(kdaug: Callable, tmp_path: Path) -> None:
    flags = [*DEMO_FLAGS, "--teacher.source", "none", "--run.dir", tmp_path / "run"]
    assert kdaug("train", "demo", *flags, "--student.name", "wide_resnet10_3").code == 2
    assert kdaug("train", "demo", *flags, "--student.name", "wide_resnet10_1").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "demo", "--views.polcy", "none"],
        ["train", "demo", "--supervision.k", "many"],
        ["train", "demo", "--data.name", "mnist"],
        ["train", "demo", "--run.dir"],
        ["train", "demo", "extra"],
        ["eval"],
        ["eval", "run", "--weights", "first"],
        ["demo", "--outt", "x"],
    ],
)
def test_an_invalid_flag_is_one_line_that_names_the_help(kdaug: Callable, arguments: list[str]) -> None:
    result = kdaug(*arguments)
    assert result.code == 2
    assert_one_line(result.err, "--help lists all settings")
    assert not result.out


def test_a_misspelt_flag_is_named_with_a_suggestion(kdaug: Callable) -> None:
    assert_one_line(
        kdaug("train", "demo", "--views.polcy", "none").err, "--views.polcy", "did you mean --views.policy?"
    )


def test_choices_are_in_order(kdaug: Callable) -> None:
    error = kdaug("train", "demo", "--supervision.method", "none").err
    assert "one of ('dist', 'dkd', 'ferkd', 'hard', 'kd', 'kd-standardized', 'None', 'paper', 'robust') (" in error


def test_a_full_disk_is_one_line(kdaug: Callable, tmp_path: Path, monkeypatch: Any) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "disk")

    monkeypatch.setattr(os, "fsync", full)
    result = kdaug("train", "demo", *DEMO_FLAGS, "--teacher.source", "none", "--run.dir", tmp_path / "run")
    assert result.code == 2
    assert_one_line(result.err, "the disk is full (disk)", "free some space, then continue")


def test_the_process_exits_with_2() -> None:
    result = subprocess.run([sys.executable, "-m", "kdaug", "trian"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert_one_line(result.stderr, "did you mean train?")
