"""What a sweep has to do: teachers to train once, labels to store once, and the runs themselves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from kdaug.config import Data, Recipe, read_recipe, to_yaml
from kdaug.data import Dataset, load_dataset
from kdaug.errors import InputError
from kdaug.runs import RunDirectory, find_run, read_environment, result_settings
from kdaug.storage.atomic import atomic_write
from kdaug.supervision.label_store import bytes_per_view
from kdaug.supervision.soft_labels import required_classes
from kdaug.training.resolve import resolve, teacher_run_recipe

_STORES = "labels"
"""In the folder of a sweep: where its label stores are."""
_SHARE_OF_DISK = 0.5
"""Of what is free, that all label stores together may take."""


@dataclass(frozen=True)
class Job:
    """One kdaug command of a sweep: a training, or a labelling for several of them.

    name: how it is called in tables and files. path: the run directory, or label store, that it fills. arguments: what
    follows `kdaug`. after: the name of the job that must be done first; None if none has to be.
    """

    name: str
    path: Path
    arguments: tuple[str, ...]
    depends_on: str | None = None

    @property
    def trains(self) -> bool:
        return self.arguments[0] == "train"


@dataclass(frozen=True)
class _Run:
    """A run of the sweep, resolved, in its directory `place`.

    teacher: how its teacher is trained; None if it needs no training. begun: the recipe that is there already, as
    which it goes on; None if none is.
    """

    name: str
    recipe: Recipe
    place: Path
    teacher: Recipe | None
    begun: Recipe | None


def plan_jobs(recipes: Mapping[str, Recipe], folder: Path, share_labels: bool) -> list[Job]:
    """The jobs of the runs named in `recipes`, in an order to go by; all is below `folder`, where recipes are written.

    A teacher that several runs want is trained once. If several are to see the same views under the same teacher, it
    looks once and its answers are stored, where the disk has room and `share_labels`. Raises InputError for a recipe
    that cannot be, for images that are not there, and for a run directory that began with another.
    """
    runs = [_run(name, recipe, folder) for name, recipe in recipes.items()]
    for run in runs:
        _check_that_it_goes_on(run)
        if not RunDirectory(run.place).is_finished:
            _dataset(run.recipe.data)
    folder.mkdir(parents=True, exist_ok=True)
    teachers = {_name_of(run.teacher): run.teacher for run in runs if run.teacher is not None}
    stores = _stores(runs, folder) if share_labels else {}
    students = [_student(run, folder, stores.get(run.name)) for run in runs]
    before = {job.depends_on for job in (*students, *stores.values())}
    first = [_training(name, recipe, folder, None) for name, recipe in teachers.items() if name in before]
    return [*first, *{store.name: store for store in stores.values()}.values(), *students]


def _run(name: str, recipe: Recipe, folder: Path) -> _Run:
    place = folder / name
    begun = read_recipe(place / "recipe.yaml") if (place / "recipe.yaml").is_file() else None
    try:
        resolved = resolve(replace(recipe, run=replace(recipe.run, dir=str(place), resume=False)))
    except InputError as error:
        raise InputError(f"run {name}: {error}") from None
    teacher = None
    if resolved.teacher.source == "train" and resolved.teacher.labels is None:
        teacher = teacher_run_recipe(resolved, _dataset(resolved.data).content if resolved.data.encoded else None)
    if begun is not None:
        resolved = with_shared_labels(resolved, begun)
    return _Run(name, resolved, place, teacher, begun)


def with_shared_labels(recipe: Recipe, begun: Recipe) -> Recipe:
    """`recipe`, learning from the label store that its run, which has `begun`, learns from, if a sweep made that."""
    labels, teacher = begun.teacher.labels, recipe.teacher
    is_shared = labels is not None and Path(labels).parent.name == _STORES
    if not is_shared or teacher.source == "none" or teacher.labels is not None:
        return recipe
    return replace(recipe, teacher=replace(teacher, labels=labels))


def _check_that_it_goes_on(run: _Run) -> None:
    """InputError if its directory is of another run, or of other images; what helps is another folder for all."""
    try:
        find_run(replace(run.recipe, run=replace(run.recipe.run, resume=True)))
    except InputError as error:
        raise InputError(str(error).replace("another --run.dir", "another --dir")) from None
    if run.begun is None or not run.recipe.data.encoded or run.begun.data.root == run.recipe.data.root:
        return
    there = read_environment(RunDirectory(run.place)).get("data")
    if there is not None and there != _dataset(run.recipe.data).content:
        raise InputError(
            f"{run.place} began with other images than those in {run.recipe.data.root}; choose another --dir"
        )


@cache
def _dataset(data: Data) -> Dataset:
    return load_dataset(data)


def _name_of(teacher: Recipe) -> str:
    assert teacher.run.dir is not None
    return f"teacher-{Path(teacher.run.dir).name}"


def _student(run: _Run, folder: Path, store: Job | None) -> Job:
    recipe = run.recipe
    if store is not None:
        stored = replace(recipe, teacher=replace(recipe.teacher, labels=str(store.path)))
        return _training(run.name, stored, folder, store.name)
    needs_teacher = run.teacher is not None and recipe.teacher.labels is None
    return _training(run.name, recipe, folder, _name_of(run.teacher) if run.teacher and needs_teacher else None)


def _training(name: str, recipe: Recipe, folder: Path, depends_on: str | None) -> Job:
    assert recipe.run.dir is not None
    file = _written(name, recipe, folder)
    return Job(name, Path(recipe.run.dir), ("train", str(file), "--run.resume"), depends_on)


def _written(name: str, recipe: Recipe, folder: Path) -> Path:
    """The file in which a job finds its recipe."""
    file = folder / "recipes" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, to_yaml(recipe))
    return file


def _stores(runs: Iterable[_Run], folder: Path) -> dict[str, Job]:
    """By the name of each run that has not begun, the labelling that it is to learn from, if it shares one."""
    groups = dict[str, list[_Run]]()
    for run in runs:
        if run.recipe.teacher.source != "none" and run.recipe.supervision.when == "all":
            groups.setdefault(_views_and_teacher(run), []).append(run)
    stores, room = dict[str, Job](), _SHARE_OF_DISK * shutil.disk_usage(folder).free
    for digits, group in groups.items():
        waiting = [run.name for run in group if run.begun is None]
        if len(group) > 1 and waiting:
            store, size = _labelling(digits, group, folder)
            if size <= room:
                room -= size
                stores |= dict.fromkeys(waiting, store)
    return stores


def _views_and_teacher(run: _Run) -> str:
    """Ten hexadecimal digits that differ where labels cannot be shared."""
    learned = result_settings(replace(run.recipe, teacher=replace(run.recipe.teacher, labels=None)))
    seen = {
        name: value
        for name, value in learned.items()
        if name.startswith(("data.", "views.", "teacher.")) or name.endswith(("epochs", ".precision"))
    }
    teacher = None if run.teacher is None else _name_of(run.teacher)
    return hashlib.sha256(json.dumps([seen, teacher], sort_keys=True).encode()).hexdigest()[:10]


def _labelling(digits: str, group: Sequence[_Run], folder: Path) -> tuple[Job, int]:
    """Stores what all runs of a group ask of their teacher, exactly; and the bytes on disk that it has yet to take."""
    first, dataset = group[0], _dataset(group[0].recipe.data)
    k = max(required_classes(run.recipe.supervision, len(dataset.classes)) for run in group)
    temperatures = sorted({run.recipe.supervision.temperature for run in group})
    epochs = first.recipe.optimization.all_epochs
    size = bytes_per_view(k, len(temperatures), "float32") * len(dataset.train) * epochs
    name = f"labels-{digits}-k{k}-t{'-'.join(f'{t:g}' for t in temperatures)}"
    recipe = replace(first.recipe, teacher=replace(first.recipe.teacher, labels=None))
    asked = ("--k", str(k), "--temperatures", *map(str, temperatures), "--precision", "float32")
    place = folder / _STORES / name.removeprefix("labels-")
    there = sum(part.stat().st_size for part in place.glob("epoch-*.safetensors"))
    arguments = ("label", str(_written(name, recipe, folder)), "--out", str(place), *asked)
    job = Job(name, place, arguments, _name_of(first.teacher) if first.teacher else None)
    return job, max(0, size - there)
