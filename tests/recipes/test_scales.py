"""The paper's recipes at smaller scales: the method is unchanged, all other settings are as listed here."""

from __future__ import annotations

from typing import get_args

import pytest

from kdaug.config import Data, check
from kdaug.errors import InputError
from kdaug.networks import create_network
from kdaug.recipes import RECIPES
from kdaug.recipes.scales import Scale, at_scale

SMALLER = [scale for scale in get_args(Scale) if scale != "paper"]
PAPER_RECIPES = [name for name in RECIPES if name.startswith(("cifar", "imagenet")) and not name.endswith("-small")]

# Written by hand: network, training images, image size, epochs, evaluate_every, global batch, learning rate.
CIFAR = {
    "smoke": ("wide_resnet10_1", 600, None, 2, 1, 32, 0.05),
    "bundled": ("wide_resnet10_1", 1210, None, 64, 16, 32, 0.1),
    "cpu": ("wide_resnet10_1", 4000, None, 50, 12, 64, 0.1),
    "gpu": ("wide_resnet16_4", None, None, 60, 15, 256, 0.2),
}
IMAGENET = {
    "smoke": ("tf_efficientnet_b0", 400, None, 1, 1, 32, 0.02),
    "cpu": ("tf_efficientnet_b0", None, 64, 16, 4, 16, 0.02),
    "gpu": ("tf_efficientnet_b0", 100_000, 128, 16, 4, 512, 0.1),
}
CLEAN_EPOCHS = {"smoke": 1, "bundled": 8, "cpu": 8, "gpu": 8}
DATASETS = {"smoke": "bundled", "bundled": "omniglot", "cpu": "cifar-10"}
"""Of the CIFAR recipes, where it is not that of the recipe."""
_MILD = "randaugment-n2-m2@paper-geometric"
TEACHERS = {
    "smoke": (None, "none", None),
    "bundled": ("wide_resnet22_1", _MILD, 100),
    "cpu": ("wide_resnet16_1", _MILD, 80),
    "gpu": (None, "randaugment-n2-m1@paper-geometric", None),
}
"""Network, policy and epochs of the teacher that the paper trains without augmentation."""
CASES = [
    *(("cifar100-table1-m5-kd", scale, settings) for scale, settings in CIFAR.items()),
    *(("imagenet-efficientnet_b4-kd", scale, settings) for scale, settings in IMAGENET.items()),
]


def scales_of(name: str) -> list[Scale]:
    return [scale for scale in SMALLER if scale != "bundled" or name.startswith("cifar")]


@pytest.mark.parametrize(("name", "scale", "settings"), CASES)
def test_settings_of_each_scale(name: str, scale: Scale, settings: tuple) -> None:
    recipe = at_scale(RECIPES[name].make(), scale)
    data, optimization = recipe.data, recipe.optimization
    own = RECIPES[name].make().data.name
    assert data.name == (own if own == "folder" and scale != "smoke" else DATASETS.get(scale, own))
    assert settings == (
        recipe.student.name, data.train_images, data.image_size, optimization.epochs, recipe.run.evaluate_every,
        optimization.global_batch, optimization.learning_rate,
    )  # fmt: skip
    assert (optimization.optimizer, optimization.schedule, optimization.warmup_epochs) == ("sgd", "cosine", 0)
    assert (optimization.ema_decay, recipe.run.device_batch) == (None, None)
    assert (recipe.teacher.source, recipe.teacher.learning_rate, recipe.teacher.weight_decay) == ("train", None, None)


@pytest.mark.parametrize("scale", SMALLER)
def test_cutout_teacher_policy_and_clean_epochs_of_each_scale(scale: Scale) -> None:
    table1 = at_scale(RECIPES["cifar100-table1-m5-kd"].make(), scale)
    assert (table1.views.cutout, table1.teacher.cutout) == (0, 0)
    teacher = table1.teacher
    assert (teacher.network, teacher.policy, teacher.epochs) == TEACHERS[scale]
    assert at_scale(RECIPES["cifar100-clean-epochs"].make(), scale).optimization.clean_epochs == CLEAN_EPOCHS[scale]


@pytest.mark.parametrize(
    ("scale", "networks"),
    [
        ("smoke", ("wide_resnet16_1", "wide_resnet10_1")),
        ("bundled", ("wide_resnet16_1", "wide_resnet10_1")),
        ("cpu", ("wide_resnet16_1", "wide_resnet10_1")),
        ("gpu", ("shake_shake26_2x32d", "wide_resnet16_4")),
    ],
)
def test_weak_teacher_stays_weaker_than_its_student(scale: Scale, networks: tuple[str, str]) -> None:
    small = at_scale(RECIPES["cifar100-weak-teacher"].make(), scale)
    assert (small.student.name, small.teacher.network) == networks
    student, teacher = (sum(p.numel() for p in create_network(name, 100, 3).parameters()) for name in networks)
    assert teacher < student


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_losses_and_policy_are_unchanged(name: str) -> None:
    original = RECIPES[name].make()
    assert at_scale(original, "paper") == original
    for scale in scales_of(name):
        small = check(at_scale(original, scale))
        assert small.supervision == original.supervision
        assert small.adversary == original.adversary
        assert (small.views.policy, small.views.magnitude) == (original.views.policy, original.views.magnitude)
        assert (small.teacher.source == "none") == (original.teacher.source == "none")
        assert original.teacher.policy in ("none", small.teacher.policy)
        assert small.optimization.weight_decay == original.optimization.weight_decay
        assert small.optimization.epochs < original.optimization.epochs
        assert bool(small.optimization.clean_epochs) == bool(original.optimization.clean_epochs)


def test_smoke_scale_uses_the_bundled_images() -> None:
    for name in PAPER_RECIPES:
        recipe = at_scale(RECIPES[name].make(), "smoke")
        assert recipe.data == Data(name="bundled", train_images=recipe.data.train_images)
        assert (recipe.views.crop, recipe.views.pad) == ("pad", 2)


def test_characters_are_not_mirrored() -> None:
    recipe = at_scale(RECIPES["cifar100-table1-m1-kd"].make(), "bundled")
    assert recipe.data == Data(name="omniglot", train_images=1210)
    assert (recipe.views.crop, recipe.views.pad, recipe.views.flip) == ("pad", 2, False)


def test_scale_without_imagenet_is_refused() -> None:
    with pytest.raises(InputError, match="the scale bundled has no ImageNet; choose smoke, cpu, gpu or paper"):
        at_scale(RECIPES["imagenet-efficientnet_b4-kd"].make(), "bundled")


def test_small_table_1_recipe_is_the_cpu_scale() -> None:
    assert RECIPES["table1-small"].make() == at_scale(RECIPES["cifar100-table1-m1-kd"].make(), "cpu")
