"""Named recipes: each resolves and survives YAML, and its settings are the published ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from kdaug import InputError
from kdaug.config import ResolvedRecipe, derive_teacher_recipe, from_yaml, to_yaml
from kdaug.networks import count_parameters, create_network
from kdaug.recipes import RECIPES, named_recipe
from kdaug.training.resolve import resolve, teacher_run_recipes


def resolve_named(name: str) -> ResolvedRecipe:
    recipe = named_recipe(name)
    return resolve(replace(recipe, run=replace(recipe.run, dir="runs/x")))


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_and_its_teacher_resolve(name: str) -> None:
    recipe = resolve_named(name)
    if recipe.teacher.source == "train":
        (teacher,) = teacher_run_recipes(recipe)
        assert to_yaml(resolve(teacher)) == to_yaml(teacher)


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_survives_yaml_and_names_its_source(name: str) -> None:
    assert from_yaml(to_yaml(named_recipe(name))) == named_recipe(name)
    assert RECIPES[name].name == name
    assert RECIPES[name].source
    assert named_recipe(name).run.dir is None, "the user chooses the run directory"


NETWORKS = {
    "wide_resnet28_10": (200, 128), "shake_shake26_2x32d": (1800, 128), "shake_shake26_2x96d": (1800, 128),
    "shake_shake26_2x112d": (1800, 128), "pyramidnet272_a200_shakedrop": (1800, 64),
}  # fmt: skip
METHODS = ["none", "autoaugment", "fast-autoaugment", "pba", "randaugment", "kd"]


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_recipe_of_each_cell_of_table_2(dataset: str, network: str, method: str) -> None:
    """Epochs and batch: AutoAugment (arXiv 1805.09501), appendix. Teacher, K, lambda, T: paper Section 4.1."""
    recipe = named_recipe(f"{dataset}-{network}-{method}")
    assert recipe.data.name == dataset.replace("cifar", "cifar-")
    assert recipe.student.name == network
    assert (recipe.optimization.epochs, recipe.optimization.global_batch) == NETWORKS[network]
    assert recipe.views.cutout == (0 if method == "none" else 16)
    policies = {"none": "none", "fast-autoaugment": "fast-autoaugment-cifar10", "pba": "pba-cifar10"}
    if method == "randaugment":
        assert recipe.views.policy.endswith("@torchvision")
    else:
        assert recipe.views.policy == policies.get(method, "autoaugment-cifar10")
    assert (recipe.teacher.source == "train") == (method == "kd")
    if method == "kd":
        supervision = recipe.supervision
        expected = (1.0, 3 if dataset == "cifar10" else 5, 2.0)
        assert (supervision.weight, supervision.k, supervision.temperature) == expected
        teacher = derive_teacher_recipe(recipe)
        same_network = network == "pyramidnet272_a200_shakedrop" and dataset == "cifar100"
        assert teacher.student.name == (network if same_network else "wide_resnet28_10")
        assert teacher.views.policy == "autoaugment-cifar10"
        per_image = teacher.optimization.learning_rate / teacher.optimization.global_batch
        assert per_image == pytest.approx(0.025 / 64 if same_network else 0.1 / 128)
        assert teacher.optimization.epochs == (1800 if same_network else 200)


# Copied by hand from the paper's tables, to check the JSON file that the recipes read.
PUBLISHED = {
    "cifar100-table1-m0": 18.4, "cifar100-table1-m4-kd": 21.9, "cifar100-table1-m7": 55.1,
    "cifar100-table1-m7-kd": 48.0,
    "cifar10-wide_resnet28_10-kd": 2.4, "cifar10-shake_shake26_2x32d-randaugment": None,
    "cifar10-pyramidnet272_a200_shakedrop-none": 2.7, "cifar100-shake_shake26_2x96d-pba": 15.3,
    "cifar100-shake_shake26_2x112d-kd": None, "cifar100-pyramidnet272_a200_shakedrop-kd": 10.6,
    "cifar100-clean-epochs": 16.8, "cifar100-clean-epochs-kd": 16.2, "cifar100-weak-teacher": 13.8,
    "imagenet-efficientnet_b0-autoaugment": 22.7, "imagenet-efficientnet_b0-randaugment": 22.6,
    "imagenet-efficientnet_b4-advprop": 16.7, "imagenet-efficientnet_b7-randaugment": 15.0,
    "imagenet-efficientnet_b8-kd": 14.3, "imagenet-efficientnet_b8-kd-800": 14.2,
    "imagenet-efficientnet_b4-doubled": 16.8, "demo": None,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_error_is_the_papers(name: str) -> None:
    assert RECIPES[name].published_error == PUBLISHED[name]


@pytest.mark.parametrize(
    ("size", "magnitude", "k", "weight", "epochs"),
    [("b0", 9, 5, 0.5, 500), ("b4", 15, 50, 2.0, 350), ("b7", 28, 50, 2.0, 350)],
)
def test_imagenet_recipes_have_the_papers_settings(
    size: str, magnitude: int, k: int, weight: float, epochs: int
) -> None:
    recipe = named_recipe(f"imagenet-efficientnet_{size}-kd")
    assert recipe.views.policy == f"randaugment-n2-m{magnitude}@tf-efficientnet"
    assert (recipe.supervision.k, recipe.supervision.weight, recipe.supervision.temperature) == (k, weight, 10.0)
    o = recipe.optimization
    assert (o.epochs, o.optimizer, o.learning_rate, o.global_batch) == (epochs, "rmsprop-tf", 0.256, 4096)
    assert (o.schedule, o.decay_rate, o.decay_epochs, o.warmup_epochs) == ("staircase", 0.97, 2.4, 5)
    assert (o.ema_decay, o.weight_decay, recipe.supervision.label_smoothing) == (0.9999, 1e-5, 0.1)


def test_b8_has_teacher_b7_and_b4_doubles_the_epochs() -> None:
    recipe = named_recipe("imagenet-efficientnet_b8-kd")
    assert recipe.teacher.source == "run:runs/imagenet-efficientnet_b7-kd"
    assert RECIPES["imagenet-efficientnet_b8-kd"].existing_teacher == ("tf_efficientnet_b7", 600)
    assert named_recipe("imagenet-efficientnet_b8-kd-800") == replace(
        recipe, run=replace(recipe.run, evaluate_size=800)
    )
    once, twice = (named_recipe(f"imagenet-efficientnet_b4-{name}").optimization for name in ("randaugment", "doubled"))
    assert (twice.epochs, twice.decay_epochs) == (2 * once.epochs, 2 * once.decay_epochs)


def test_clean_epochs_recipes_with_and_without_teacher() -> None:
    label_only, with_teacher = (named_recipe(f"cifar100-clean-epochs{kd}") for kd in ("", "-kd"))
    assert label_only.optimization == with_teacher.optimization
    assert (label_only.optimization.epochs, label_only.optimization.clean_epochs) == (200, 50)
    assert label_only.teacher.source == "none"
    assert (with_teacher.teacher.source, with_teacher.supervision.when) == ("train", "clean")


@pytest.mark.parametrize("name", ["cifar100-table1", "table1-small"])
def test_table_1_has_the_published_settings(name: str) -> None:
    """Paper Section 4.1: two geometric ops, lambda 1, K 5, T 2; the release of arXiv 1805.09501 for the rest."""
    recipe = named_recipe(name)
    assert recipe.data.name == ("cifar-100" if name == "cifar100-table1" else "cifar-10")
    assert recipe.views.policy == "randaugment-n2-m1@paper-geometric"
    assert (recipe.views.crop, recipe.views.pad, recipe.views.flip) == ("pad", 4, True)
    supervision, optimization = recipe.supervision, recipe.optimization
    assert (supervision.weight, supervision.k, supervision.temperature) == (1.0, 5, 2.0)
    assert (optimization.momentum, optimization.weight_decay, optimization.clip_norm) == (0.9, 5e-4, 5.0)
    if name == "cifar100-table1":
        assert (optimization.global_batch, optimization.learning_rate) == (128, 0.1)


def test_table_1_network_has_the_published_size() -> None:
    recipe = named_recipe("cifar100-table1")
    assert (recipe.optimization.epochs, recipe.views.cutout, recipe.data.train_images) == (200, 16, None)
    with torch.device("meta"):
        count = count_parameters(create_network(recipe.student.name, 100, 3))
    assert round(count / 1e6, 1) == 36.5  # arXiv 1605.07146, Table 4


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dmeo", "did you mean demo"),
        ("table1-smal", "table1-small"),
        ("xyz", "kdaug recipes lists them"),
    ],
)
def test_unknown_recipe_error_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"there is no recipe '{name}'.*{hint}"):
        named_recipe(name)
