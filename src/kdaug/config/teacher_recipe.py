"""The recipe by which a student's teacher is trained."""

from __future__ import annotations

from dataclasses import replace

from kdaug.config.recipe import Network, Recipe, Run, Supervision, Views


def teacher_network(recipe: Recipe) -> Network:
    """The network of a teacher that is trained, or loaded from a weight file that does not name its network.

    Without teacher.network it is the student's, with teacher.arguments in place of the student's unless empty.
    """
    teacher = recipe.teacher
    if teacher.network:
        return Network(teacher.network, arguments=teacher.arguments)
    return replace(recipe.student, arguments=teacher.arguments or recipe.student.arguments)


def derive_teacher_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the teacher that `recipe` trains: the settings in `teacher`, all others as the student's.

    If teacher.network is None, the teacher has the student's network, pretrained if the student's is. run.dir is still
    the student's: the caller replaces it. Never a ResolvedRecipe, even if `recipe` is one.
    """
    teacher, optimization = recipe.teacher, recipe.optimization
    views, run = Views(**vars(recipe.views)), Run(**vars(recipe.run))
    return Recipe(
        data=recipe.data,
        views=replace(views, policy=teacher.policy, cutout=teacher.cutout, mixup=0.0, cutmix=0.0, seed=teacher.seed),
        student=teacher_network(recipe),
        supervision=Supervision(label_smoothing=teacher.label_smoothing),
        optimization=replace(
            optimization,
            epochs=teacher.epochs or optimization.epochs,
            clean_epochs=0,
            clean_learning_rate=None,
            learning_rate=teacher.learning_rate or optimization.learning_rate,
            weight_decay=optimization.weight_decay if teacher.weight_decay is None else teacher.weight_decay,
        ),
        run=replace(run, seed=teacher.seed, resume=True, evaluate_size=None),
    )
