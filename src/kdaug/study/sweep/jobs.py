"""The jobs of a sweep: teachers to train once, labels to store once, and the runs themselves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from kdaug.config import Recipe, ResolvedRecipe, read_recipe, split_source, to_yaml
from kdaug.data import load_dataset
from kdaug.errors import InputError
from kdaug.runs import RunDirectory, find_run, read_environment, result_settings
from kdaug.storage import atomic_write
from kdaug.supervision.manifest import bytes_per_view
from kdaug.supervision.soft_labels import required_classes
from kdaug.training.resolve import resolve, teacher_run_recipes

_LABEL_FOLDER = "labels"
"""Folder of the label stores, inside the sweep's folder."""
_MAX_DISK_FRACTION = 0.5
"""Fraction of the free disk space that all new labels together may take."""
_USE_ANOTHER_FOLDER = "choose another folder for the sweep"
_load_dataset = cache(load_dataset)


@dataclass(frozen=True)
class Job:
    """One kdaug command of a sweep: it trains a run or a teacher, or stores labels for several runs.

    name: identifies the job in tables and file names. path: the run directory or label store that it writes. arguments:
    the command line after `kdaug`. depends_on: names of the jobs that must finish first. serves_others: a teacher or
    labels, which are only needed while another job needs them.
    """

    name: str
    path: Path
    arguments: tuple[str, ...]
    depends_on: tuple[str, ...] = ()
    serves_others: bool = False

    @property
    def trains(self) -> bool:
        """Whether it writes a run directory."""
        return self.arguments[0] == "train"


@dataclass(frozen=True)
class _PlannedRun:
    """A run of the sweep.

    teachers: recipes of the teachers that have to be trained for it: none, one or teacher.folds. existing: the recipe
    in its run directory if the run has begun, or None. teacher_runs: the names of the runs of the sweep that are its
    teachers.
    """

    name: str
    recipe: ResolvedRecipe
    teachers: tuple[ResolvedRecipe, ...]
    existing: Recipe | None
    teacher_runs: tuple[str, ...]

    @property
    def teacher_jobs(self) -> tuple[str, ...]:
        """Names of the jobs that train its teachers."""
        return (*map(_teacher_job_name, self.teachers), *self.teacher_runs)


def _teacher_job_name(teacher: ResolvedRecipe) -> str:
    return f"teacher-{Path(teacher.run.dir).name}"


def plan_jobs(recipes: Mapping[str, Recipe], folder: Path, share_labels: bool) -> list[Job]:
    """The jobs that train `recipes` (by run name). Writes their recipes to `folder`.

    Runs with the same teacher share one training of it, and a run of the sweep can be the teacher of others. With
    `share_labels`, runs with the same views and teacher also share one label store, if the disk has space for it.
    Raises InputError for an invalid recipe, missing images, a run directory that belongs to another recipe or other
    images, and runs that are each other's teachers.
    """
    names = {(folder / name).resolve(): name for name in recipes}
    runs = [_plan_run(name, recipe, folder, names) for name, recipe in recipes.items()]
    _check_order(runs)
    for run in runs:
        _check_run_directory(run)
        if not RunDirectory(Path(run.recipe.run.dir)).is_finished:
            _check_teachers(run, names)
            _load_dataset(run.recipe.data)
    folder.mkdir(parents=True, exist_ok=True)
    label_jobs = _plan_label_jobs(runs, folder) if share_labels else {}
    run_jobs = [_run_job(run, folder, label_jobs.get(run.name)) for run in runs]
    shared = {job.name: job for job in label_jobs.values()}.values()
    needed = {name for job in (*run_jobs, *shared) for name in job.depends_on}
    teachers = {_teacher_job_name(teacher): teacher for run in runs for teacher in run.teachers}
    teacher_jobs = [
        _training_job(name, recipe, folder, (), serves_others=True)
        for name, recipe in teachers.items()
        if name in needed
    ]
    return [*teacher_jobs, *shared, *run_jobs]


def _plan_run(name: str, recipe: Recipe, folder: Path, names: Mapping[Path, str]) -> _PlannedRun:
    """names: the names of all runs by their directory."""
    directory = RunDirectory(folder / name)
    existing = read_recipe(directory.recipe) if directory.recipe.is_file() else None
    try:
        resolved = resolve(replace(recipe, run=replace(recipe.run, dir=str(directory.path), resume=False)))
    except InputError as error:
        raise InputError(f"run {name}: {error.problem}", error.hint) from None
    teachers = tuple[ResolvedRecipe, ...]()
    if resolved.teacher.source == "train" and resolved.teacher.labels is None:
        images = _load_dataset(resolved.data).content if resolved.data.encoded else None
        teachers = tuple(map(resolve, teacher_run_recipes(resolved, images)))
    if existing is not None:
        resolved = with_shared_labels(resolved, existing)
    teacher_runs = tuple(names[each] for each in _teacher_directories(resolved) if each in names)
    return _PlannedRun(name, resolved, teachers, existing, teacher_runs)


def _teacher_directories(recipe: Recipe) -> list[Path]:
    """The absolute paths of the runs that teacher.source names."""
    sources = split_source(recipe.teacher.source)
    return [Path(source.removeprefix("run:")).resolve() for source in sources if source.startswith("run:")]


def _check_order(runs: Iterable[_PlannedRun]) -> None:
    """Raises InputError for runs that are each other's teachers."""
    try:
        TopologicalSorter({run.name: run.teacher_runs for run in runs}).prepare()
    except CycleError as error:
        circle = " teaches ".join(error.args[1])
        raise InputError(
            f"a teacher must be trained before its student, but {circle}", "change a teacher.source"
        ) from None


def _check_teachers(run: _PlannedRun, names: Mapping[Path, str]) -> None:
    """Raises InputError if a run that is a teacher neither exists nor belongs to the sweep."""
    if run.recipe.teacher.labels is not None:
        return
    for directory in _teacher_directories(run.recipe):
        if directory not in names and not directory.exists():
            raise InputError(
                f"run {run.name}: its teacher {directory} does not exist and is no run of this sweep",
                f"write run:{Path(run.recipe.run.dir).parent}/NAME for a run of the sweep",
            )


def with_shared_labels(recipe: ResolvedRecipe, existing: Recipe) -> ResolvedRecipe:
    """`recipe` with the label store of `existing`, the recipe in its run directory, if a sweep made that store."""
    labels, teacher = existing.teacher.labels, recipe.teacher
    is_shared = labels is not None and Path(labels).parent.name == _LABEL_FOLDER
    if not is_shared or teacher.source == "none" or teacher.labels is not None:
        return recipe
    return replace(recipe, teacher=replace(teacher, labels=labels))


def _check_run_directory(run: _PlannedRun) -> None:
    """Raises InputError if the run directory belongs to another recipe or other images."""
    recipe = run.recipe
    try:
        find_run(replace(recipe, run=replace(recipe.run, resume=True)))
    except InputError as error:
        raise InputError(error.problem, _USE_ANOTHER_FOLDER) from None
    if run.existing is None or not recipe.data.encoded or run.existing.data.root == recipe.data.root:
        return
    content = read_environment(RunDirectory(Path(recipe.run.dir))).get("data")
    if content is not None and content != _load_dataset(recipe.data).content:
        raise InputError(
            f"{recipe.run.dir} was started with a different dataset than {recipe.data.root}", _USE_ANOTHER_FOLDER
        )


def _run_job(run: _PlannedRun, folder: Path, label_job: Job | None) -> Job:
    recipe = run.recipe
    if label_job is not None:
        recipe = replace(recipe, teacher=replace(recipe.teacher, labels=str(label_job.path)))
        return _training_job(run.name, recipe, folder, (label_job.name,))
    return _training_job(run.name, recipe, folder, run.teacher_jobs if recipe.teacher.labels is None else ())


def _training_job(
    name: str, recipe: ResolvedRecipe, folder: Path, depends_on: tuple[str, ...], serves_others: bool = False
) -> Job:
    file = _write_recipe(name, recipe, folder)
    return Job(name, Path(recipe.run.dir), ("train", str(file), "--run.resume"), depends_on, serves_others)


def _write_recipe(name: str, recipe: Recipe, folder: Path) -> Path:
    """Writes the recipe of a job; the path of the file."""
    file = folder / "recipes" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, to_yaml(recipe))
    return file


def _plan_label_jobs(runs: Iterable[_PlannedRun], folder: Path) -> dict[str, Job]:
    """The labeling job of each run that has not begun and shares its views and teacher with another, by run name."""
    groups = dict[str, list[_PlannedRun]]()
    for run in runs:
        if run.recipe.teacher.source != "none" and run.recipe.supervision.when == "all":
            groups.setdefault(_labels_fingerprint(run), []).append(run)
    jobs, free_bytes = dict[str, Job](), _MAX_DISK_FRACTION * shutil.disk_usage(folder).free
    for fingerprint, group in groups.items():
        new_runs = [run.name for run in group if run.existing is None]
        if len(group) > 1 and new_runs:
            job, missing_bytes = _label_job(fingerprint, group, folder)
            if missing_bytes <= free_bytes:
                free_bytes -= missing_bytes
                jobs |= dict.fromkeys(new_runs, job)
    return jobs


def _labels_fingerprint(run: _PlannedRun) -> str:
    """Ten hexadecimal digits, equal for runs that can use the same stored labels."""
    settings = result_settings(replace(run.recipe, teacher=replace(run.recipe.teacher, labels=None)))
    relevant = {
        name: value
        for name, value in settings.items()
        if name.startswith(("data.", "views.", "teacher.")) or name.endswith(("epochs", ".precision"))
    }
    if run.recipe.supervision.standardize_logits:
        relevant["supervision.standardize_logits"] = True
    del relevant["data.unlabelled_share"]  # a store has all unlabelled images
    teachers = "+".join(run.teacher_jobs) or None
    return hashlib.sha256(json.dumps([relevant, teachers], sort_keys=True).encode()).hexdigest()[:10]


def _label_job(fingerprint: str, group: Sequence[_PlannedRun], folder: Path) -> tuple[Job, int]:
    """The job that stores the labels that all runs of `group` need, and how many bytes it has yet to write."""
    first, dataset = group[0], _load_dataset(group[0].recipe.data)
    k = max(required_classes(run.recipe.supervision, len(dataset.classes)) for run in group)
    temperatures = sorted({run.recipe.supervision.temperature for run in group})
    store_name = f"{fingerprint}-k{k}-t{'-'.join(f'{t:g}' for t in temperatures)}"
    name, store = f"labels-{store_name}", folder / _LABEL_FOLDER / store_name
    recipe = replace(first.recipe, teacher=replace(first.recipe.teacher, labels=None))
    options = ("--k", str(k), "--temperatures", *map(str, temperatures), "--precision", "float32")
    arguments = ("label", str(_write_recipe(name, recipe, folder)), "--out", str(store), *options)
    views = (len(dataset.train) + len(dataset.unlabelled or ())) * first.recipe.optimization.total_epochs
    total_bytes = bytes_per_view(k, len(temperatures), "float32", first.recipe.supervision.standardize_logits) * views
    written_bytes = sum(file.stat().st_size for file in store.glob("epoch-*.safetensors"))
    return Job(name, store, arguments, first.teacher_jobs, serves_others=True), max(0, total_bytes - written_bytes)
