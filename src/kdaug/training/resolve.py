"""From the recipe that the user wrote to the one that is trained: shorthands replaced, dependent defaults filled in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdaug.config import (
    Recipe,
    ResolvedRecipe,
    ResolvedRun,
    ResolvedViews,
    Teacher,
    check,
    derive_teacher_recipe,
    read_recipe,
)
from kdaug.errors import InputError
from kdaug.networks import check_network_name, find_weights, pin_weights, resolve_initial_weights, split_digest
from kdaug.runs import recipe_fingerprint
from kdaug.runs.trackers import check_trackers
from kdaug.training.distributed import is_restarted_job
from kdaug.views.policies import (
    CIFAR_MEAN,
    create_policy,
    pin_factors,
    pin_policy_files,
    policy_from_views,
    spec_with_magnitude,
)


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """The recipe as it is trained and written into the run directory.

    The policy's specification includes the magnitude, policy files are pinned by a fingerprint, initial weights by a
    digest of their file, with the mean and std that go with them, views.seed is set, and run.resume is on if torchrun
    or SLURM restarted the job. Reads no data. Raises InputError for an impossible setting.
    """
    check(recipe)
    if recipe.run.dir is None:
        raise InputError("run.dir is missing", "set it to the directory that the run is written to")
    run = ResolvedRun(**{**vars(recipe.run), "resume": recipe.run.resume or is_restarted_job()})
    recipe = _with_recorded_weights(recipe)
    teacher = recipe.teacher
    create_policy(teacher.policy, epochs=teacher.epochs or recipe.optimization.epochs)  # created for its errors
    check_network_name(recipe.student.name)
    if teacher.network is not None:
        check_network_name(teacher.network)
    if teacher.source == "train" and teacher.labels is None:
        _check_teacher_training(recipe)
    check_trackers(run.trackers)
    resolved: dict[str, Any] = {
        "views": _resolve_views(recipe),
        "student": resolve_initial_weights(recipe.student, recipe.data.channels),
        "teacher": replace(_pin_teacher_weights(teacher), policy=pin_policy_files(teacher.policy)),
        "run": run,
    }
    return ResolvedRecipe(**{**vars(recipe), **resolved})


def _with_recorded_weights(recipe: Recipe) -> Recipe:
    """`recipe` with what the run in run.dir recorded about files of initial weights that are gone."""
    path = Path(recipe.run.dir or "") / "recipe.yaml"
    if not path.is_file():
        return recipe
    recorded, student, teacher = read_recipe(path), recipe.student, recipe.teacher
    if _is_gone(student.weights, recorded.student.weights):
        before = recorded.student
        student = replace(student, weights=before.weights, mean=before.mean, std=before.std)
    if _is_gone(teacher.weights, recorded.teacher.weights):
        teacher = replace(teacher, weights=recorded.teacher.weights)
    return replace(recipe, student=student, teacher=teacher)


def _is_gone(source: str | None, recorded: str | None) -> bool:
    """Whether `source`, which a run recorded with the digest of its file, has no file any more."""
    if source is None or recorded is None or split_digest(source)[1]:
        return False
    try:
        find_weights(source, "student.weights")
    except InputError:
        return split_digest(recorded)[0] == source
    return False


def _pin_teacher_weights(teacher: Teacher) -> Teacher:
    """`teacher` with a digest of its weight file, if it is trained. With stored labels the file may be gone."""
    if teacher.weights is None or teacher.source != "train":
        return teacher
    try:
        return replace(teacher, weights=pin_weights(teacher.weights, "teacher.weights"))
    except InputError:
        if teacher.labels is None:
            raise
        return teacher


def _resolve_views(recipe: Recipe) -> ResolvedViews:
    views = recipe.views
    policy = views.policy if views.magnitude is None else spec_with_magnitude(views.policy, views.magnitude)
    seed = recipe.run.seed if views.seed is None else views.seed
    factors = None if views.magnitude_factors is None else pin_factors(views.magnitude_factors)
    pinned = {"policy": pin_policy_files(policy), "magnitude": None, "magnitude_factors": factors, "seed": seed}
    resolved = ResolvedViews(**{**vars(views), **pinned})
    # Created only for its errors; the real one needs the dataset's mean.
    policy_from_views(resolved, CIFAR_MEAN, recipe.data.encoded, epochs=recipe.optimization.epochs)
    return resolved


def _check_teacher_training(recipe: Recipe) -> None:
    """Raises InputError if the recipe of the teacher's training is invalid."""
    try:
        check(derive_teacher_recipe(recipe))
    except InputError as error:
        raise InputError(f"the teacher's training: {error.problem}", error.hint) from None


def teacher_run_names(recipe: Recipe, images: str | None = None) -> list[str]:
    """The names of the runs of the teacher, one or teacher.folds, from all that their results depend on.

    images: see `recipe_fingerprint`.
    """
    return [_teacher_run_name(teacher, images) for teacher in _teacher_recipes(recipe)]


def teacher_run_recipes(recipe: ResolvedRecipe, images: str | None = None) -> list[Recipe]:
    """The recipes by which the teacher of `recipe` is trained: one, or teacher.folds. images: see `recipe_fingerprint`.

    run.dir is teachers/NAME next to the student's directory, so all students that need the same teacher share it.
    """
    folder = Path(recipe.run.dir).parent / "teachers"
    return [
        replace(teacher, run=replace(teacher.run, dir=str(folder / _teacher_run_name(teacher, images))))
        for teacher in _teacher_recipes(recipe)
    ]


def _teacher_recipes(recipe: Recipe) -> list[Recipe]:
    return [derive_teacher_recipe(recipe, fold) for fold in range(recipe.teacher.folds or 1)]


def _teacher_run_name(teacher: Recipe, images: str | None) -> str:
    return f"{teacher.data.name}-{teacher.student.name}-{recipe_fingerprint(teacher, images)}"


def read_resolved_recipe(path: Path) -> ResolvedRecipe:
    """The recipe that kdaug wrote to `path`, in a run directory or a label store, without resolving it again.

    Works even if its policy file was deleted. Raises InputError if it is missing, or was not written by kdaug.
    """
    recipe = read_recipe(path)
    if recipe.run.dir is None or recipe.views.seed is None or recipe.views.magnitude is not None:
        raise InputError(f"recipe {path} is not a run's: run.dir or views.seed is missing", "train it first")
    views, run = ResolvedViews(**vars(recipe.views)), ResolvedRun(**vars(recipe.run))
    return ResolvedRecipe(**{**vars(recipe), "views": views, "run": run})
