"""kdaug train: output and files, on the bundled images and on photos."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recipes import DEMO_FLAGS, PHOTOS_FLAGS
from support.runs import read_lines

from kdaug.config import read_recipe
from kdaug.recipes import named_recipe

FILES = set(
    "recipe.yaml environment.json metrics.jsonl tensorboard checkpoints best.safetensors last.safetensors .lock".split()
)


def test_teacher_and_student_are_trained(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kdaug", "train", "demo", *DEMO_FLAGS, "--run.dir", "runs/a"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    (teacher,) = (tmp_path / "runs" / "teachers").iterdir()
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"a", "teachers"}
    assert {p.name for p in tmp_path.iterdir()} == {"runs"}
    for run in (tmp_path / "runs" / "a", teacher):
        assert {p.name for p in run.iterdir()} == FILES
    end = read_lines(tmp_path / "runs" / "a")[-1]
    assert f"error {end['top1_error']:.2f} %, lowest" in result.stdout
    assert "files in runs/a:\n" in result.stdout
    for command in ("kdaug eval runs/a", "tensorboard --logdir runs/a/tensorboard", "kdaug train runs/a/recipe.yaml"):
        assert command in result.stdout
    assert f"training the teacher first: runs/teachers/{teacher.name}" in result.stdout
    assert f"error {read_lines(teacher)[-1]['top1_error']:.2f} % on the validation images" in result.stdout


def test_flags_change_only_their_settings(kdaug: Callable, tmp_path: Path) -> None:
    flags = "--teacher.source none --views.magnitude 3 --supervision.k 2 --optimization.clip-norm None --run.seed 4"
    assert kdaug("train", "demo", *DEMO_FLAGS, *flags.split(), "--run.dir", tmp_path / "run").code == 0
    written, named = read_recipe(tmp_path / "run" / "recipe.yaml"), named_recipe("demo")
    assert (written.teacher.source, written.supervision.k) == ("none", 2)
    assert written.views.policy == "randaugment-n2-m3@paper-geometric"
    assert written.views.seed == written.run.seed == 4
    assert written.optimization.clip_norm is None
    assert (written.student, written.supervision.temperature) == (named.student, named.supervision.temperature)
    assert (written.views.pad, written.optimization.learning_rate) == (2, 0.1)


def test_the_default_directory_is_recipe_and_fingerprint(
    kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for learning_rate in ("0.1", "0.2"):
        flags = ["--teacher.source", "none", "--optimization.learning-rate", learning_rate]
        assert kdaug("train", "demo", *DEMO_FLAGS, *flags).code == 0
    names = [run.name for run in (tmp_path / "runs").iterdir()]
    assert len(names) == 2
    assert all(re.fullmatch("demo-[0-9a-f]{10}", name) for name in names)
    again = kdaug("train", "demo", *DEMO_FLAGS, *flags)
    assert again.code == 2
    assert "is a finished run; choose another --run.dir" in again.err


def test_a_recipe_may_be_a_yaml_file(kdaug: Callable, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yml"
    recipe.write_text("student: {name: wide_resnet10_1}\noptimization: {learning_rate: 1e-2}\n")
    assert kdaug("train", recipe, *DEMO_FLAGS, "--run.dir", tmp_path / "run").code == 0
    assert read_recipe(tmp_path / "run" / "recipe.yaml").optimization.learning_rate == 0.01


def test_resuming_a_finished_run_changes_nothing(kdaug: Callable, demo_run: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in demo_run.rglob("*")}
    result = kdaug("train", demo_run / "recipe.yaml", "--run.resume")
    assert (result.code, result.err) == (0, "")
    assert f"{demo_run} is already finished" in result.out
    assert {p: p.stat().st_mtime_ns for p in demo_run.rglob("*")} == before


# Photos


def test_photos_are_trained_with_a_teacher(photos_run: Path) -> None:
    (teacher,) = (photos_run.parent / "teachers").iterdir()
    for run, report in ((photos_run, {"data-report.csv", "data-report.json", "index.html"}), (teacher, set())):
        assert {p.name for p in run.iterdir()} == FILES | report
        steps = read_lines(run, "step")
        assert [line["step"] for line in steps] == [1, 2, 3, 4]  # 33 of 36 images to train on, in batches of 8
        assert read_lines(run)[-1]["images"] == 3
    assert all(line["divergence"] != 0 for line in read_lines(photos_run, "step"))


@pytest.mark.parametrize("workers", ["0", "2"])
def test_weights_do_not_depend_on_workers(kdaug: Callable, photos_run: Path, shapes: Path, workers: str) -> None:
    run = photos_run.with_name(f"workers-{workers}")  # next to the first, to share its teacher
    flags = ["--data.root", shapes, "--run.dir", run, "--data.workers", workers]
    assert kdaug("train", "photos", *PHOTOS_FLAGS, *flags).code == 0
    assert (run / "last.safetensors").read_bytes() == (photos_run / "last.safetensors").read_bytes()


def test_a_moved_image_folder_is_the_same_data(kdaug: Callable, photos_run: Path, shapes_copy: Path) -> None:
    flags = ["--teacher.source", f"run:{next((photos_run.parent / 'teachers').iterdir())}", "--data.root", shapes_copy]
    run = shapes_copy.with_name("run")
    assert kdaug("train", "photos", *PHOTOS_FLAGS, *flags, "--run.dir", run).code == 0
    assert (run / "last.safetensors").read_bytes() == (photos_run / "last.safetensors").read_bytes()


@pytest.mark.parametrize("network", ["test_efficientnet", "test_vit"])
def test_timm_networks_can_be_the_student(kdaug: Callable, shapes: Path, tmp_path: Path, network: str) -> None:
    size = "160" if network == "test_vit" else "64"
    flags = ["--student.name", network, "--data.image-size", size, "--teacher.source", "none", "--data.root", shapes]
    flags += ["--no-student.pretrained"]
    assert kdaug("train", "photos", *PHOTOS_FLAGS, *flags, "--run.dir", tmp_path / "run").code == 0
    assert kdaug("eval", tmp_path / "run").code == 0


def truncate(folder: Path, names: list[str]) -> list[Path]:
    """Truncated JPEGs at the paths `names` under `folder`."""
    header = next((folder / "disc").iterdir()).read_bytes()[:200]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(header)
    return [folder / name for name in names]


def test_unreadable_images_are_left_out(kdaug: Callable, shapes_copy: Path) -> None:
    broken = truncate(shapes_copy, ["disc/half.jpg", "square/rest.jpg"])
    run = shapes_copy.with_name("run")
    flags = ["--data.root", shapes_copy, "--teacher.source", "none", "--data.max-unreadable", "0.5"]
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *flags, "--optimization.epochs", "2", "--run.dir", run)
    assert (result.code, result.err) == (0, "")
    for path in broken:
        assert result.out.count(f"unreadable image left out: {path}") == 1
    assert read_lines(run)[-1]["kind"] == "end"


def test_unreadable_images_with_markup_in_their_names(kdaug: Callable, shapes_copy: Path) -> None:
    shutil.copytree(shapes_copy / "disc", shapes_copy / "ring[")
    broken = truncate(shapes_copy, ["disc/half [bold] 1.jpg", "ring[/b] [i].jpg"])
    flags = ["--data.root", shapes_copy, "--teacher.source", "none", "--data.max-unreadable", "0.5"]
    flags += ["--optimization.epochs", "2", "--optimization.global-batch", "40"]
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *flags, "--run.dir", shapes_copy.with_name("run"))
    assert (result.code, result.err) == (0, "")
    for path in broken:
        assert f"unreadable image left out: {path}" in result.out


def test_resume_refuses_added_photos(kdaug: Callable, shapes_copy: Path) -> None:
    """They would change the sample order, and the teacher was not trained on them."""
    command = ["train", "photos", *PHOTOS_FLAGS, "--data.root", shapes_copy, "--run.dir"]
    run = shapes_copy.with_name("run")
    assert kdaug(*command, run).code == 0
    (run / "last.safetensors").unlink()
    shutil.copy(shapes_copy / "disc" / "00.jpg", shapes_copy / "disc" / "new.jpg")
    result = kdaug(*command, run, "--run.resume")
    assert result.code == 2
    assert f"the dataset has changed since {run} was started" in result.err
    teachers = list(shapes_copy.with_name("teachers").iterdir())
    assert len(teachers) == 2, "a new teacher is trained on the new images"
    result = kdaug("eval", run.parent / "teachers" / teachers[0].name)
    other = kdaug("eval", run.parent / "teachers" / teachers[1].name)
    note = "note: the images differ from those"
    assert (note in result.err) != (note in other.err)


def test_resume_with_moved_photos(kdaug: Callable, shapes_copy: Path) -> None:
    """The teacher is not trained again: the images are the same."""
    run = shapes_copy.with_name("run")
    assert kdaug("train", "photos", *PHOTOS_FLAGS, "--data.root", shapes_copy, "--run.dir", run).code == 0
    before = (run / "last.safetensors").read_bytes()
    (run / "last.safetensors").unlink()
    moved = shapes_copy.rename(shapes_copy.with_name("moved"))
    assert "does not exist; give it with --data.root" in kdaug("train", run, "--run.resume").err
    result = kdaug("train", run, "--run.resume", "--data.root", moved)
    assert (result.code, result.err) == (0, "")
    assert (run / "last.safetensors").read_bytes() == before
    assert len(list(run.with_name("teachers").iterdir())) == 1
