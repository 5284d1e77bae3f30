"""From what the user wrote to what will be done: shorthands spelt out, defaults that depend on others filled in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from kdaug.config import Recipe, check, derive_teacher_recipe
from kdaug.errors import InputError
from kdaug.networks import check_network_name
from kdaug.runs import recipe_fingerprint
from kdaug.runs.trackers import check_trackers
from kdaug.training.distributed import is_restarted_job
from kdaug.views.policies import CIFAR_MEAN, create_policy, pin_policy_files, policy_from_views, spec_with_magnitude


def resolve(recipe: Recipe) -> Recipe:
    """The recipe as it is written into the run directory: full policy specification, seed of the views, run.dir.

    Raises InputError for any setting that cannot be, before anything is read or allocated.
    """
    check(recipe)
    if recipe.run.dir is None:
        raise InputError("run.dir is missing; say where the run is to be written")
    run = replace(recipe.run, resume=recipe.run.resume or is_restarted_job())
    views = recipe.views
    if views.magnitude is not None:
        views = replace(views, policy=spec_with_magnitude(views.policy, views.magnitude), magnitude=None)
    if views.seed is None:
        views = replace(views, seed=recipe.run.seed)
    epochs = recipe.optimization.epochs
    views = replace(views, policy=pin_policy_files(views.policy))
    teacher = replace(recipe.teacher, policy=pin_policy_files(recipe.teacher.policy))
    encoded = recipe.data.encoded
    policy_from_views(
        views, CIFAR_MEAN, cropped_at_decoding=encoded, epochs=epochs
    )  # made to be refused here, if at all
    create_policy(teacher.policy, epochs=teacher.epochs or epochs)
    check_network_name(recipe.student.name)
    if recipe.teacher.network is not None:
        check_network_name(recipe.teacher.network)
    if recipe.teacher.source == "train" and recipe.teacher.labels is None:
        _check_its_teacher(recipe)
    check_trackers(recipe.run.trackers)
    return replace(recipe, views=views, teacher=teacher, run=run)


def _check_its_teacher(recipe: Recipe) -> None:
    """InputError if the teacher of a recipe cannot be trained as the recipe says, before the student's run begins."""
    try:
        check(derive_teacher_recipe(recipe))
    except InputError as error:
        raise InputError(f"the teacher's training: {error}") from None


def teacher_run_recipe(recipe: Recipe, images: str | None = None) -> Recipe:
    """How the teacher of a resolved recipe is trained, and where.

    Its directory stands beside the student's, under teachers/, and is named after everything it depends on, so that all
    students that want this teacher share it; `images` stands for the place of an image folder, as in `fingerprint`.
    """
    alone = derive_teacher_recipe(recipe)
    assert recipe.run.dir is not None
    name = f"{alone.data.name}-{alone.student.name}-{recipe_fingerprint(alone, images)}"
    return replace(alone, run=replace(alone.run, dir=str(Path(recipe.run.dir).parent / "teachers" / name)))
