"""The jobs of a sweep: runs share teachers and labels, and each job comes after its dependency."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy
from PIL import Image

from kdaug.config import Recipe, read_recipe, with_settings
from kdaug.data import load_dataset
from kdaug.errors import InputError
from kdaug.recipes import named_recipe
from kdaug.study.sweep import Job, expand_grid, plan_jobs, run_names


def plan(folder: Path, *axes: str, share: bool = True, **settings: Any) -> list[Job]:
    """The jobs of a grid over the demo recipe; optimization_epochs=3 sets optimization.epochs."""
    demo = with_settings(
        named_recipe("demo"),
        {"teacher.source": "train", "data.name": "bundled", "data.measure_unused": False}
        | {name.replace("_", ".", 1): v for name, v in settings.items()},
        "demo",
    )
    runs = expand_grid(axes)
    recipes: Mapping[str, Recipe] = {
        name: with_settings(demo, run, name) for name, run in zip(run_names(runs), runs, strict=True)
    }
    return plan_jobs(recipes, folder, share)


def kinds(jobs: list[Job]) -> list[str]:
    """ "teacher", "labels" or the run's name, for each job."""
    return [job.name.partition("-")[0] if job.name.startswith(("teacher-", "labels-")) else job.name for job in jobs]


def recipe_of(job: Job) -> Recipe:
    return read_recipe(job.arguments[1])


def test_teacher_and_labels_are_shared(tmp_path: Path) -> None:
    jobs = plan(tmp_path, "run.seed=0,1", "supervision.weight=0.5,1", "supervision.k=2,4")
    assert kinds(jobs)[:3] == ["teacher", "labels", "labels"]
    teacher, first, second, *runs = jobs
    assert len(runs) == 8
    assert (teacher.depends_on, first.depends_on, second.depends_on) == ((), (teacher.name,), (teacher.name,))
    assert [run.depends_on for run in runs] == [(first.name,)] * 4 + [(second.name,)] * 4
    assert ("--k", "4") in zip(first.arguments, first.arguments[1:], strict=False)
    assert recipe_of(first).run.seed == 0
    assert recipe_of(second).views.seed == 1
    for run in runs:
        recipe = recipe_of(run)
        assert recipe.teacher.labels == str(first.path if recipe.run.seed == 0 else second.path)
        assert recipe.run.dir == str(run.path) == str(tmp_path / run.name)


def test_cross_fitted_teachers_are_jobs_of_their_own(tmp_path: Path) -> None:
    """They can be trained at the same time; the labels wait for all of them."""
    *teachers, labels, first, second = plan(tmp_path, "supervision.k=2,4", teacher_folds=3)
    assert [job.depends_on for job in teachers] == [()] * 3
    assert sorted(recipe_of(job).data.omit_fold or "" for job in teachers) == ["0/3", "1/3", "2/3"]
    assert labels.depends_on == tuple(job.name for job in teachers)
    assert first.depends_on == second.depends_on == (labels.name,)


def plan_rounds(folder: Path, sources: Mapping[str, str], **settings: Any) -> list[Job]:
    """The jobs of runs with these teachers, by the name of the run."""
    demo = with_settings(named_recipe("demo"), {"data.name": "bundled", "data.measure_unused": False}, "demo")
    each = {name: with_settings(demo, {"teacher.source": source} | settings, name) for name, source in sources.items()}
    return plan_jobs(each, folder, share_labels=True)


def test_run_comes_after_its_teacher_in_the_sweep(tmp_path: Path) -> None:
    """Whatever their order, and if several of them average their predictions."""
    folder = tmp_path / "s"
    both = f"run:{folder}/first,run:{folder}/../s/second"
    jobs = plan_rounds(folder, {"third": both, "second": f"run:{folder}/first", "first": "none"})
    assert {job.name: job.depends_on for job in jobs} == {
        "third": ("first", "second"),
        "second": ("first",),
        "first": (),
    }
    assert not any(job.serves_others for job in jobs), "all of them are results"


def test_labels_wait_for_a_teacher_in_the_sweep(tmp_path: Path) -> None:
    teacher = f"run:{tmp_path}/first"
    demo = with_settings(named_recipe("demo"), {"data.name": "bundled", "data.measure_unused": False}, "demo")
    runs = {"first": {"teacher.source": "none"}} | {
        f"k{k}": {"teacher.source": teacher, "supervision.k": k} for k in (2, 4)
    }
    jobs = plan_jobs({name: with_settings(demo, run, name) for name, run in runs.items()}, tmp_path, share_labels=True)
    labels, first, *students = jobs
    assert labels.depends_on == (first.name,) == ("first",)
    assert labels.serves_others
    assert [student.depends_on for student in students] == [(labels.name,)] * 2


def test_runs_that_are_each_others_teachers_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for sources in ({"a": "run:{}/b", "b": "run:{}/a"}, {"a": "run:{}/a"}):
        with pytest.raises(InputError, match=r"before its student, but .*a teaches .*; change a teacher"):
            plan_rounds(folder, {name: source.format(folder) for name, source in sources.items()})
    assert not folder.exists()


def test_teacher_that_neither_exists_nor_is_in_the_sweep_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sources = {"teacher": "none", "student": f"run:{folder}/teachr"}
    with pytest.raises(
        InputError, match=r"run student: .*teachr does not exist and is no run of this sweep; write run:.*/s/NAME"
    ):
        plan_rounds(folder, sources)
    assert not folder.exists()


def test_kinds_of_teachers_are_no_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    jobs = plan_rounds(Path(), {"none": "none", "train": "train"})
    assert [job.depends_on for job in jobs if not job.serves_others] == [(), (jobs[0].name,)]


def test_labels_are_stored_only_if_shared(tmp_path: Path) -> None:
    jobs = plan(tmp_path / "a", "views.magnitude=2,5", "teacher.source=none,train")
    assert kinds(jobs)[0] == "teacher"
    assert [(recipe_of(job).teacher.labels, job.depends_on) for job in jobs[1:]] == [
        (None, ()), (None, (jobs[0].name,)), (None, ()), (None, (jobs[0].name,)),
    ]  # fmt: skip
    assert kinds(plan(tmp_path / "b", "supervision.k=2,4", share=False)) == ["teacher", "k=2", "k=4"]
    different = plan(tmp_path / "c", "teacher.policy=none,autoaugment-cifar10")
    assert kinds(different)[:2] == ["teacher", "teacher"]
    assert [job.depends_on for job in different[2:]] == [(job.name,) for job in different[:2]]
    by_precision = plan(tmp_path / "e", "optimization.precision=float32,bfloat16", teacher_source="timm:resnet18")
    assert "labels" not in kinds(by_precision), "a teacher's predictions depend on the precision"
    clean = {"supervision_when": "policy", "optimization_clean_epochs": 1}
    assert "labels" not in kinds(plan(tmp_path / "d", "supervision.k=2,4", **clean))


def test_labels_are_not_stored_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    store_bytes = 10_000 * 12 * (6 * 4 + 4 + 4)  # bundled images, epochs, bytes per record
    for free, stored in ((2 * store_bytes, True), (2 * store_bytes - 4, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(free))
        flags = {"optimization_epochs": 12, "data_train_images": None}
        jobs = plan(tmp_path / str(free), "supervision.k=2,4", **flags)
        assert ("labels" in kinds(jobs)) is stored


def test_all_stores_together_fit_the_disk_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage, store_bytes = namedtuple("usage", "free"), 10_000 * 12 * (6 * 4 + 4 + 4)
    flags = {"optimization_epochs": 12, "data_train_images": None}
    axes = ("supervision.k=2,4", "run.seed=0..3")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(2 * 2.5 * store_bytes))
    first = [job for job in plan(tmp_path, *axes, **flags) if job.name.startswith("labels-")]
    assert len(first) == 2
    first[0].path.mkdir(parents=True)
    with open(first[0].path / "epoch-00000-0.safetensors", "wb") as file:
        file.truncate(store_bytes)  # a complete store needs no more space
    assert kinds(plan(tmp_path, *axes, **flags)).count("labels") == 3


@pytest.mark.parametrize(
    ("existing", "settings"),
    [("elsewhere", {}), ("elsewhere", {"teacher_labels": "others"}), ("labels/a", {"teacher_source": "none"})],
)
def test_other_labels_are_another_recipe(existing: str, settings: dict[str, Any], tmp_path: Path) -> None:
    (job,) = [job for job in plan(tmp_path, "supervision.k=2", teacher_labels=existing) if job.name == "k=2"]
    job.path.mkdir()
    shutil.copy(job.arguments[1], job.path / "recipe.yaml")
    with pytest.raises(InputError, match=r"k=2 was started with another recipe \(teacher\."):
        plan(tmp_path, "supervision.k=2", **settings)


def test_finished_run_on_other_images_is_refused(tmp_path: Path, write_run_files: Callable[..., None]) -> None:
    for folder, color in (("a", 10), ("b", 20), ("moved", 10)):
        for split, label in product(("train", "val"), ("cat", "dog")):
            (tmp_path / folder / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8), (color, 0, 0)).save(tmp_path / folder / split / label / f"{color}.png")
    photos = with_settings(named_recipe("photos"), {"teacher.source": "none"}, "photos")

    def recipe_with_root(folder: str) -> dict[str, Recipe]:
        return {"run": with_settings(photos, {"data.root": str(tmp_path / folder)}, "photos")}

    write_run_files(tmp_path / "sweep/run", recipe_with_root("a")["run"], 50.0)
    safetensors.numpy.save_file({}, tmp_path / "sweep/run/last.safetensors")
    content = load_dataset(recipe_with_root("a")["run"].data).content
    (tmp_path / "sweep/run/environment.json").write_text(json.dumps({"data": content}))
    for folder in ("a", "moved"):
        assert len(plan_jobs(recipe_with_root(folder), tmp_path / "sweep", True)) == 1
    with pytest.raises(
        InputError, match=r"sweep/run was started with a different dataset than .*/b; choose another folder"
    ):
        plan_jobs(recipe_with_root("b"), tmp_path / "sweep", True)
    with pytest.raises(InputError, match="nowhere"):
        plan_jobs(recipe_with_root("nowhere"), tmp_path / "sweep", True)


def test_existing_run_keeps_its_labels(tmp_path: Path) -> None:
    (job,) = [job for job in plan(tmp_path, "supervision.k=2") if job.name == "k=2"]
    job.path.mkdir()
    shutil.copy(job.arguments[1], job.path / "recipe.yaml")
    jobs = {job.name: job for job in plan(tmp_path, "supervision.k=2,4,6")}
    assert recipe_of(jobs["k=2"]).teacher.labels is None
    assert jobs["k=2"].depends_on[0].startswith("teacher-")
    assert jobs["k=4"].depends_on == jobs["k=6"].depends_on
    assert jobs["k=4"].depends_on[0].startswith("labels-")
    (tmp_path / "k=4").mkdir()
    shutil.copy(jobs["k=4"].arguments[1], tmp_path / "k=4/recipe.yaml")
    again = {job.name: job for job in plan(tmp_path, "supervision.k=2,4,6")}
    assert recipe_of(again["k=4"]).teacher.labels == str(jobs[jobs["k=4"].depends_on[0]].path)
    assert again["k=4"].depends_on == ()
    assert again["k=6"].depends_on == jobs["k=6"].depends_on
    assert kinds(plan(tmp_path, "supervision.k=4")) == ["k=4"], "its labels are stored, so no teacher is trained"


def test_run_directory_of_another_recipe_is_refused(tmp_path: Path) -> None:
    (job,) = [job for job in plan(tmp_path, "teacher.source=none") if job.name == "source=none"]
    job.path.mkdir()
    shutil.copy(job.arguments[1], job.path / "recipe.yaml")
    with pytest.raises(
        InputError,
        match=r"source=none was started with another recipe \(optimization.epochs: .*; choose another folder",
    ):
        plan(tmp_path, "teacher.source=none", optimization_epochs=3)


def test_invalid_recipe_error_names_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run policy=nothing: "):
        plan(tmp_path / "sweep", "views.policy=nothing")
    assert not (tmp_path / "sweep").exists()
