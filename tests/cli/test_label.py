"""kdaug label: photos are labeled once, trained without the teacher, verified; and errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.recipes import PHOTOS_FLAGS
from support.runs import read_lines, without_seconds

from kdaug.training import Interrupted, labeling

EXACT = ("--precision", "float32")


@pytest.fixture(scope="module")
def labeled(tmp_path_factory: pytest.TempPathFactory, photos_run: Path, shapes: Path) -> Path:
    """The store of the teacher of `photos_run`; look only."""
    from kdaug.cli.main import main

    store = tmp_path_factory.mktemp("labels") / "store"
    (teacher,) = (photos_run.parent / "teachers").iterdir()
    flags = ["--data.root", str(shapes), "--teacher.source", f"run:{teacher}", "--out", str(store), *EXACT]
    assert main(["label", "photos", *PHOTOS_FLAGS, *flags]) == 0
    return store


def test_stored_labels_train_like_the_teacher(
    labeled: Path, photos_run: Path, shapes: Path, kdaug: Callable, tmp_path: Path
) -> None:
    flags = ("--teacher.source", "none", "--teacher.labels", labeled, "--run.dir", tmp_path / "run")
    result = kdaug("train", "photos", *PHOTOS_FLAGS, "--data.root", shapes, *flags)
    assert result.code == 0, result.err
    assert "training the teacher first" not in result.out + result.err
    # up to rounding: on some processors a convolution's last bits depend on how many images it is given
    for read, asked in zip(*(without_seconds(read_lines(r)) for r in (tmp_path / "run", photos_run)), strict=True):
        assert read.pop("kind") == asked.pop("kind")
        assert read == pytest.approx(asked, rel=1e-3)
    read, asked = (load_file(run / "last.safetensors") for run in (tmp_path / "run", photos_run))
    torch.testing.assert_close(read, asked, rtol=1e-2, atol=1e-4)


def test_size_and_training_command_are_printed(photos_run: Path, shapes: Path, kdaug: Callable, tmp_path: Path) -> None:
    (teacher,) = (photos_run.parent / "teachers").iterdir()
    flags = ("--data.root", shapes, "--teacher.source", f"run:{teacher}", "--out", tmp_path / "s", "--epochs", "0:1")
    result = kdaug("label", "photos", *PHOTOS_FLAGS, *flags)
    assert result.code == 0, result.err
    assert "18 bytes per view, 33 images, 1 epoch(s) to write: 0.0 MB" in result.out + result.err
    command = result.out.splitlines()[-1].partition(":  kdaug ")[2].split()
    assert command == [
        "train",
        f"{tmp_path / 's'}/recipe.yaml",
        "--teacher.labels",
        str(tmp_path / "s"),
        "--run.dir",
        "NEW",
    ]
    trained = kdaug(*command[:-1], tmp_path / "run", "--optimization.epochs", "1")
    assert trained.code == 0, trained.err
    again = kdaug("label", "photos", *PHOTOS_FLAGS, *flags)
    assert again.code == 0
    assert "bytes per view" not in again.out + again.err, "it is complete already"


def test_verify_a_label_store(labeled: Path, kdaug: Callable) -> None:
    result = kdaug("label", "verify", labeled, "--run.device", "cpu", "--views", "20")
    assert result.code == 0, result.err
    views, errors = result.out.splitlines()
    assert views == f"compared 20 views of 1 epoch(s) of {labeled}; largest differences:"
    names = ["log-probability", "label", "log-sum-exp", "label without augmentation"]
    assert [error.rpartition(" ")[0] for error in errors.split(", ")] == names
    assert all(float(error.rpartition(" ")[2]) < 1e-4 for error in errors.split(", "))


def test_verify_finds_wrong_labels(labeled: Path, kdaug: Callable, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(labeled, store)
    (first,) = store.glob("epoch*.safetensors")
    with safe_open(first, "pt") as file:
        metadata = file.metadata()
    records = load_file(first)
    records["label"] -= 1
    save_file(records, first, metadata)
    result = kdaug("label", "verify", store, "--run.device", "cpu", "--views", "33")
    assert result.code == 1
    assert "of these views differ by more than rounding; label again" in result.err


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("label", "a recipe is missing"),
        ("label photos {photos_flags} --data.root {shapes}", "--out STR Folder to write to. (required)"),
        ("label --out {tmp}/s photos", "the recipe comes first, then the flags: RECIPE --out ..."),
        (
            "label photos {photos_flags} --data.root {shapes} --teacher.source none --out {tmp}/s",
            "teacher.source is none",
        ),
        (
            "label photos {photos_flags} --data.root {shapes} --out {tmp}/s --epochs 9",
            "--epochs is '9', but must be like 0:90",
        ),
        ("label photos {photos_flags} --data.root {shapes} --out {tmp}/s --epochs 0:9", "epochs 0:9 are not within"),
        ("label photos {photos_flags} --data.root {shapes} --out {tmp}/s --epochs 0:1 --cycle 1", "exclude each other"),
        ("label photos {photos_flags} --data.root {shapes} --out {tmp}/s --cycle 0", "cycle is 0, but must be from 1"),
        ("label photos {photos_flags} --data.root {shapes} --out {tmp}/s --k 0", "k is 0, but"),
        ("label photos {photos_flags} --data.root {shapes} --out {tmp}/s --precison float32", "--precison"),
        ("label verify {tmp}/nothing", "is not a label store"),
        ("label verify {shapes}", "is not a label store"),
        ("label verify {labeled} --seed=-1", "seed is -1, but"),
        ("label verify {labeled} --views 0", "views is 0, but"),
        (
            "train photos {photos_flags} --data.root {shapes} --teacher.labels {tmp}/no --run.dir {tmp}/r",
            "not a label store",
        ),
        (
            "train photos {photos_flags} --data.root {shapes} --teacher.labels {labeled} --run.seed 3 --run.dir {tmp}",
            "views.seed: 0 -> 3",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    command: str, problem: str, labeled: Path, shapes: Path, kdaug: Callable, tmp_path: Path
) -> None:
    paths = {"photos_flags": " ".join(PHOTOS_FLAGS), "shapes": shapes, "labeled": labeled, "tmp": tmp_path}
    result = kdaug(*command.format(**paths).split())
    assert result.code == 2, result.err
    assert problem in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [Interrupted(Path("x")), KeyboardInterrupt()])
def test_interruption_names_the_way_to_resume(
    stop: BaseException, labeled: Path, shapes: Path, kdaug: Callable, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(labeling, "get_or_train_teacher", stopped)
    result = kdaug(
        "label", "photos", *PHOTOS_FLAGS, "--data.root", shapes, "--teacher.source", "train", "--out", tmp_path / "s"
    )
    assert (result.code, result.err) == (130, "kdaug: interrupted; the same command resumes\n")
