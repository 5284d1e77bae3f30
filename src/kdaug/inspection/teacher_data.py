"""Which images a teacher was trained on, as far as that is known."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from kdaug.config import Data, Recipe, read_recipe
from kdaug.errors import InputError


def teacher_data(recipe: Recipe) -> Data | None:
    """The settings of the data that the recipe's teacher was trained on; None if they are not known."""
    kind, _, location = recipe.teacher.source.partition(":")
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
    """Whether the recipe's teacher was trained on training images of this dataset; None: unknown."""
    data = teacher_data(recipe)
    return True if data is not None and _is_same_dataset(data, recipe.data) else None


def trained_on_validation_images(recipe: Recipe) -> bool | None:
    """Whether the recipe's teacher may have been trained on validation images of the recipe; None: unknown.

    With another subset or hold-out split of the same dataset it may.
    """
    data, own = teacher_data(recipe), recipe.data
    if data is None or not _is_same_dataset(data, own):
        return None
    same_fraction = data.val_fraction == own.val_fraction or not own.encoded
    validates_on_training_images = bool(own.holdout) or own.measure_unused
    same_selection = (data.train_images, data.holdout) == (own.train_images, own.holdout)
    return not same_fraction or (validates_on_training_images and not same_selection)


def _is_same_dataset(data: Data, own: Data) -> bool:
    same_folder = not data.encoded or Path(data.root).resolve() == Path(own.root).resolve()
    return data.name == own.name and same_folder
