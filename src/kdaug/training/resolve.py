"""From the recipe that the user wrote to the one that is trained: shorthands replaced, dependent defaults filled in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdaug.config import Recipe, ResolvedRecipe, ResolvedRun, ResolvedViews, check, derive_teacher_recipe, read_recipe
from kdaug.errors import InputError
from kdaug.networks import check_network_name
from kdaug.runs import recipe_fingerprint
from kdaug.runs.trackers import check_trackers
from kdaug.training.distributed import is_restarted_job
from kdaug.views.policies import CIFAR_MEAN, create_policy, pin_policy_files, policy_from_views, spec_with_magnitude


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """The recipe as it is trained and written into the run directory.

    The policy's specification includes the magnitude, policy files are pinned by a fingerprint, views.seed is set, and
    run.resume is on if torchrun or SLURM restarted the job. Reads no data. Raises InputError for an impossible setting.
    """
    check(recipe)
    if recipe.run.dir is None:
        raise InputError("run.dir is missing", "set it to the directory that the run is written to")
    teacher, run = recipe.teacher, recipe.run
    create_policy(teacher.policy, epochs=teacher.epochs or recipe.optimization.epochs)  # created for its errors
    check_network_name(recipe.student.name)
    if teacher.network is not None:
        check_network_name(teacher.network)
    if teacher.source == "train" and teacher.labels is None:
        _check_teacher_training(recipe)
    check_trackers(run.trackers)
    resolved: dict[str, Any] = {
        "views": _resolve_views(recipe),
        "teacher": replace(teacher, policy=pin_policy_files(teacher.policy)),
        "run": ResolvedRun(**{**vars(run), "resume": run.resume or is_restarted_job()}),
    }
    return ResolvedRecipe(**{**vars(recipe), **resolved})


def _resolve_views(recipe: Recipe) -> ResolvedViews:
    views = recipe.views
    policy = views.policy if views.magnitude is None else spec_with_magnitude(views.policy, views.magnitude)
    seed = recipe.run.seed if views.seed is None else views.seed
    resolved = ResolvedViews(**{**vars(views), "policy": pin_policy_files(policy), "magnitude": None, "seed": seed})
    # Created only for its errors; the real one needs the dataset's mean.
    policy_from_views(resolved, CIFAR_MEAN, recipe.data.encoded, epochs=recipe.optimization.epochs)
    return resolved


def _check_teacher_training(recipe: Recipe) -> None:
    """Raises InputError if the recipe of the teacher's training is invalid."""
    try:
        check(derive_teacher_recipe(recipe))
    except InputError as error:
        raise InputError(f"the teacher's training: {error.problem}", error.hint) from None


def teacher_run_name(recipe: Recipe, images: str | None = None) -> str:
    """The name of the teacher's run, from all that its result depends on. images: see `recipe_fingerprint`."""
    teacher = derive_teacher_recipe(recipe)
    return f"{teacher.data.name}-{teacher.student.name}-{recipe_fingerprint(teacher, images)}"


def teacher_run_recipe(recipe: ResolvedRecipe, images: str | None = None) -> Recipe:
    """The recipe by which the teacher of `recipe` is trained. images: see `recipe_fingerprint`.

    Its run.dir is teachers/NAME next to the student's directory, so all students that need the same teacher share it.
    """
    teacher = derive_teacher_recipe(recipe)
    directory = Path(recipe.run.dir).parent / "teachers" / teacher_run_name(recipe, images)
    return replace(teacher, run=replace(teacher.run, dir=str(directory)))


def read_resolved_recipe(path: Path) -> ResolvedRecipe:
    """The recipe that kdaug wrote to `path`, in a run directory or a label store, without resolving it again.

    Works even if its policy file was deleted. Raises InputError if it is missing, or was not written by kdaug.
    """
    recipe = read_recipe(path)
    if recipe.run.dir is None or recipe.views.seed is None or recipe.views.magnitude is not None:
        raise InputError(f"recipe {path} is not a run's: run.dir or views.seed is missing", "train it first")
    views, run = ResolvedViews(**vars(recipe.views)), ResolvedRun(**vars(recipe.run))
    return ResolvedRecipe(**{**vars(recipe), "views": views, "run": run})
