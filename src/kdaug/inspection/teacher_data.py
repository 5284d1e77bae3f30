"""Which images the teachers were trained on, as far as that is known."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from kdaug.config import Data, Recipe, read_recipe, split_source
from kdaug.errors import InputError


def teacher_data(recipe: Recipe) -> list[Data | None]:
    """The settings of the data that each of the recipe's teachers was trained on; None if they are not known."""
    return [_source_data(source, recipe) for source in split_source(recipe.teacher.source)]


def _source_data(source: str, recipe: Recipe) -> Data | None:
    kind, _, location = source.partition(":")
    if kind == "train":
        return recipe.data
    if kind == "bundled":
        with resources.as_file(resources.files("kdaug.data") / "omniglot" / "teacher.yaml") as path:
            return read_recipe(path).data
    if kind != "run":
        return None
    path = Path(location)
    try:
        return read_recipe(path if path.name == "recipe.yaml" else path / "recipe.yaml").data
    except InputError:
        return None


def trained_on_training_images(recipe: Recipe) -> bool | None:
    """Whether the recipe's teacher was trained on the training images of this dataset that it is shown; None: unknown.

    Cross-fitted teachers were not: each image is shown to the one that was trained without it.
    """
    if recipe.teacher.source == "train" and recipe.teacher.folds is not None:
        return False
    known = [data for data in teacher_data(recipe) if data is not None]
    return True if any(_is_same_dataset(data, recipe.data) for data in known) else None


def trained_on_validation_images(recipe: Recipe) -> bool | None:
    """Whether the recipe's teacher may have been trained on validation images of the recipe; None: unknown.

    With another subset or hold-out split of the same dataset it may.
    """
    answers = [_may_overlap(data, recipe.data) for data in teacher_data(recipe)]
    return True if True in answers else None if None in answers else False


def _may_overlap(data: Data | None, own: Data) -> bool | None:
    if data is None or not _is_same_dataset(data, own):
        return None
    same_fraction = data.val_fraction == own.val_fraction or not own.encoded
    validates_on_training_images = bool(own.holdout) or own.measure_unused
    same_selection = (data.train_images, data.holdout) == (own.train_images, own.holdout)
    return not same_fraction or (validates_on_training_images and not same_selection)


def _is_same_dataset(data: Data, own: Data) -> bool:
    same_folder = not data.encoded or Path(data.root).resolve() == Path(own.root).resolve()
    return data.name == own.name and same_folder
