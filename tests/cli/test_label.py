"""kdaug label: photos labelled once, learned from without the teacher, verified; what is wrong is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdaug.training import Interrupted, labelling

EXACT = ("--precision", "float32")


def learned(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, photos_run: Path, shapes: Path, photos: list[str]) -> Path:
    """The store of the teacher of `photos_run`; look only."""
    from kdaug.cli.main import main

    store = tmp_path_factory.mktemp("labels") / "store"
    (teacher,) = (photos_run.parent / "teachers").iterdir()
    flags = ["--data.root", str(shapes), "--teacher.source", f"run:{teacher}", "--out", str(store), *EXACT]
    assert main(["label", "photos", *photos, *flags]) == 0
    return store


def test_photos_labelled_once_are_learned_as_with_the_teacher(
    labelled: Path, photos_run: Path, shapes: Path, photos: list[str], kdaug: Callable, tmp_path: Path
) -> None:
    flags = ("--teacher.source", "none", "--teacher.labels", labelled, "--run.dir", tmp_path / "run")
    said = kdaug("train", "photos", *photos, "--data.root", shapes, *flags)
    assert said.code == 0, said.err
    assert "the teacher comes first" not in said.out + said.err
    # up to rounding: on some processors a convolution's last bits depend on how many images it is given
    for read, asked in zip(learned(tmp_path / "run"), learned(photos_run), strict=True):
        assert read.pop("kind") == asked.pop("kind")
        assert read == pytest.approx(asked, rel=1e-3)
    read, asked = (load_file(run / "last.safetensors") for run in (tmp_path / "run", photos_run))
    torch.testing.assert_close(read, asked, rtol=1e-2, atol=1e-4)


def test_the_size_is_said_before_and_the_command_that_learns_from_it_after(
    photos_run: Path, shapes: Path, photos: list[str], kdaug: Callable, tmp_path: Path
) -> None:
    (teacher,) = (photos_run.parent / "teachers").iterdir()
    flags = ("--data.root", shapes, "--teacher.source", f"run:{teacher}", "--out", tmp_path / "s", "--epochs", "0:1")
    said = kdaug("label", "photos", *photos, *flags)
    assert said.code == 0, said.err
    assert "18 bytes a view, 33 images, 1 epoch(s) to be written: 0.0 MB" in said.out + said.err
    command = said.out.splitlines()[-1].partition(":  kdaug ")[2].split()
    assert command == [
        "train",
        f"{tmp_path / 's'}/recipe.yaml",
        "--teacher.labels",
        str(tmp_path / "s"),
        "--run.dir",
        "NEW",
    ]
    learned_from_it = kdaug(*command[:-1], tmp_path / "run", "--optimization.epochs", "1")
    assert learned_from_it.code == 0, learned_from_it.err
    again = kdaug("label", "photos", *photos, *flags)
    assert again.code == 0
    assert "bytes a view" not in again.out + again.err, "it is there already"


def test_a_store_is_verified(labelled: Path, kdaug: Callable) -> None:
    said = kdaug("label", "verify", labelled, "--run.device", "cpu", "--views", "20")
    assert said.code == 0, said.err
    views, errors = said.out.splitlines()
    assert views == f"20 views of 1 epoch(s) of {labelled} looked at again; they differ at most by:"
    names = ["log-probability", "label", "log-sum-exp", "label without augmentation"]
    assert [error.rpartition(" ")[0] for error in errors.split(", ")] == names
    assert all(float(error.rpartition(" ")[2]) < 1e-4 for error in errors.split(", "))


def test_a_store_that_does_not_hold_what_the_teacher_says_fails_verification(
    labelled: Path, kdaug: Callable, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(labelled, store)
    (first,) = store.glob("epoch*.safetensors")
    with safe_open(first, "pt") as file:
        metadata = file.metadata()
    records = load_file(first)
    records["label"] -= 1
    save_file(records, first, metadata)
    said = kdaug("label", "verify", store, "--run.device", "cpu", "--views", "33")
    assert said.code == 1
    assert "of these views have answers that rounding does not explain; label again" in said.err


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("label", "which recipe?"),
        ("label photos {photos} --data.root {shapes}", "--out STR Folder to write to. (required)"),
        ("label --out {tmp}/s photos", "the recipe comes first, then the flags: RECIPE --out ..."),
        ("label photos {photos} --data.root {shapes} --teacher.source none --out {tmp}/s", "teacher.source is none"),
        (
            "label photos {photos} --data.root {shapes} --out {tmp}/s --epochs 9",
            "--epochs is '9', but must be like 0:90",
        ),
        ("label photos {photos} --data.root {shapes} --out {tmp}/s --epochs 0:9", "epochs 0:9 are not among"),
        ("label photos {photos} --data.root {shapes} --out {tmp}/s --epochs 0:1 --cycle 1", "exclude each other"),
        ("label photos {photos} --data.root {shapes} --out {tmp}/s --cycle 0", "--cycle is 0, but must be from 1"),
        ("label photos {photos} --data.root {shapes} --out {tmp}/s --k 0", "--k is 0"),
        ("label photos {photos} --data.root {shapes} --out {tmp}/s --precison float32", "--precison"),
        ("label verify {tmp}/nothing", "is not a label store"),
        ("label verify {shapes}", "is not a label store"),
        ("label verify {labelled} --seed=-1", "--seed is -1"),
        ("label verify {labelled} --views 0", "--views is 0"),
        ("train photos {photos} --data.root {shapes} --teacher.labels {tmp}/no --run.dir {tmp}/r", "not a label store"),
        (
            "train photos {photos} --data.root {shapes} --teacher.labels {labelled} --run.seed 3 --run.dir {tmp}/r",
            "views.seed: 0 -> 3",
        ),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    command: str, says: str, labelled: Path, shapes: Path, photos: list[str], kdaug: Callable, tmp_path: Path
) -> None:
    places = {"photos": " ".join(photos), "shapes": shapes, "labelled": labelled, "tmp": tmp_path}
    said = kdaug(*command.format(**places).split())
    assert said.code == 2, said.err
    assert says in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [Interrupted(Path("x")), KeyboardInterrupt()])
def test_interrupted_it_says_how_to_go_on(
    stop: BaseException, labelled: Path, shapes: Path, photos: list[str], kdaug: Callable, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(labelling, "find_teacher", stopped)
    said = kdaug(
        "label", "photos", *photos, "--data.root", shapes, "--teacher.source", "train", "--out", tmp_path / "s"
    )
    assert (said.code, said.err) == (130, "kdaug: interrupted; the same command goes on from what is written\n")
