"""The recipe by which a student's teacher is trained."""

from __future__ import annotations

from dataclasses import replace

from kdaug.config.recipe import Data, Network, Recipe, Run, Supervision, Views


def teacher_network(recipe: Recipe) -> Network:
    """The network of a teacher that is trained, or loaded from a weight file that does not name its network.

    Without teacher.network it is the student's, with teacher.arguments in place of the student's unless empty. Then its
    initial weights are the student's too, unless teacher.weights names others; with teacher.network they are random.
    """
    teacher, student = recipe.teacher, recipe.student
    if teacher.network:
        network = Network(teacher.network, arguments=teacher.arguments)
    else:
        network = replace(student, arguments=teacher.arguments or student.arguments)
    if teacher.weights is None:
        return network
    return replace(network, pretrained=False, weights=teacher.weights, mean=teacher.mean, std=teacher.std)


def derive_teacher_recipe(recipe: Recipe, fold: int = 0) -> Recipe:
    """The recipe of the teacher that `recipe` trains: the settings in `teacher`, all others as the student's.

    fold: which of its teachers if teacher.folds is set; they differ only in the images that are left out. The network
    and initial weights are those of `teacher_network`. run.dir is still the student's: the caller replaces it. Never a
    ResolvedRecipe, even if `recipe` is one.
    """
    teacher, optimization = recipe.teacher, recipe.optimization
    views, run = Views(**vars(recipe.views)), Run(**vars(recipe.run))
    omit_fold = recipe.data.omit_fold if teacher.folds is None else f"{fold}/{teacher.folds}"
    return Recipe(
        data=replace(
            recipe.data, check=False, omit_fold=omit_fold, unlabelled=None, unlabelled_share=Data().unlabelled_share
        ),
        views=replace(
            views,
            policy=teacher.policy,
            cutout=teacher.cutout,
            mixup=0.0,
            cutmix=0.0,
            seed=teacher.seed,
            magnitude_factors=None,
        ),
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
