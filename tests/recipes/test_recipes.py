"""Named recipes: each can be trained as it stands, and says what it says it says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdaug import InputError
from kdaug.config import Recipe, from_yaml, to_yaml
from kdaug.networks import create_network, parameter_count
from kdaug.recipes import RECIPES, named_recipe
from kdaug.training.resolving import resolve, teacher_recipe


def resolved(name: str) -> Recipe:
    recipe = named_recipe(name)
    return resolve(replace(recipe, run=replace(recipe.run, dir="runs/x")))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_resolves_and_its_teacher_too(name: str) -> None:
    recipe = resolved(name)
    assert recipe.teacher.source == "train"
    teacher = teacher_recipe(recipe)
    assert resolve(teacher) == teacher


@pytest.mark.parametrize("name", RECIPES)
def test_the_networks_of_every_recipe_can_be_made(name: str) -> None:
    recipe = resolved(name)
    with torch.device("meta"):
        for network in {recipe.student.name, teacher_recipe(recipe).student.name}:
            assert create_network(network, 100, 3)(torch.empty(2, 3, 32, 32)).shape == (2, 100)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_yaml_and_has_a_docstring(name: str) -> None:
    assert from_yaml(to_yaml(named_recipe(name))) == named_recipe(name)
    assert RECIPES[name].__doc__
    assert named_recipe(name).run.dir is None, "where it is written is the user's to say"


@pytest.mark.parametrize("name", ["cifar100-table1", "cifar100-table1-small"])
def test_table_1_is_trained_as_the_paper_and_the_autoaugment_release_say(name: str) -> None:
    """Paper Section 4.1: two geometric ops, lambda 1, K 5, T 2; the release of arXiv 1805.09501 for the rest."""
    recipe = named_recipe(name)
    assert recipe.data.name == "cifar-100"
    assert recipe.views.policy == "randaugment-n2-m1@paper-geometric"
    assert (recipe.views.crop, recipe.views.pad, recipe.views.flip) == ("pad", 4, True)
    supervision, optimization = recipe.supervision, recipe.optimization
    assert (supervision.weight, supervision.k, supervision.temperature) == (1.0, 5, 2.0)
    assert (optimization.global_batch, optimization.learning_rate, optimization.momentum) == (128, 0.1, 0.9)
    assert (optimization.weight_decay, optimization.clip_norm) == (5e-4, 5.0)


def test_the_full_table_1_is_a_wide_resnet_28_10_of_the_published_size_for_200_epochs() -> None:
    recipe = named_recipe("cifar100-table1")
    assert (recipe.optimization.epochs, recipe.views.cutout, recipe.data.train_images) == (200, 16, None)
    with torch.device("meta"):
        count = parameter_count(create_network(recipe.student.name, 100, 3))
    assert round(count / 1e6, 1) == 36.5  # arXiv 1605.07146, Table 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [("dmeo", "did you mean demo"), ("cifar100-table1-smal", "cifar100-table1-small"), ("xyz", "there are demo, ")],
)
def test_a_recipe_that_there_is_not_is_named_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"there is no recipe '{name}'.*{hint}"):
        named_recipe(name)
