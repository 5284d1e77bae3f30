"""From a student's recipe to its teacher's."""

from __future__ import annotations

from dataclasses import replace

from kdaug.config.recipe import Adversary, Network, Recipe, Supervision, Teacher


def derive_teacher_recipe(recipe: Recipe) -> Recipe:
    """How the teacher of a recipe is trained, wherever that is: what `teacher` says, all else as the student.

    Without a network of its own it is the student's, pretrained if that is.
    """
    teacher, optimization = recipe.teacher, recipe.optimization
    return replace(
        recipe,
        views=replace(
            recipe.views, policy=teacher.policy, cutout=teacher.cutout, mixup=0.0, cutmix=0.0, seed=teacher.seed
        ),
        student=Network(teacher.network) if teacher.network else recipe.student,
        teacher=Teacher(),
        supervision=Supervision(label_smoothing=recipe.supervision.label_smoothing),
        adversary=Adversary(),
        optimization=replace(
            optimization,
            epochs=teacher.epochs or optimization.epochs,
            clean_epochs=0,
            clean_learning_rate=None,
            learning_rate=teacher.learning_rate or optimization.learning_rate,
            weight_decay=optimization.weight_decay if teacher.weight_decay is None else teacher.weight_decay,
        ),
        run=replace(recipe.run, dir=None, seed=teacher.seed, resume=True, evaluate_size=None),
    )
