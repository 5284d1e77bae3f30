"""The paper's recipes at smaller scales: the method stays, what it takes shrinks."""

from __future__ import annotations

from typing import get_args

import pytest

from kdaug.config import check
from kdaug.networks import create_network
from kdaug.recipes import RECIPES
from kdaug.recipes.scales import Scale, at_scale

SMALLER = [scale for scale in get_args(Scale) if scale != "paper"]
OF_PAPER = [name for name in RECIPES if name.startswith(("cifar", "imagenet")) and not name.endswith("-small")]


@pytest.mark.parametrize("name", OF_PAPER)
def test_what_is_added_to_the_loss_and_the_policy_stay(name: str) -> None:
    original = RECIPES[name].make()
    assert at_scale(original, "paper") == original
    for scale in SMALLER:
        small = check(at_scale(original, scale))
        assert small.supervision == original.supervision
        assert small.adversary == original.adversary
        assert (small.views.policy, small.views.magnitude) == (original.views.policy, original.views.magnitude)
        assert (small.teacher.source == "none") == (original.teacher.source == "none")
        assert small.teacher.policy == original.teacher.policy
        assert small.optimization.epochs < original.optimization.epochs
        assert bool(small.optimization.clean_epochs) == bool(original.optimization.clean_epochs)
        assert small.optimization.clean_epochs < small.optimization.epochs


@pytest.mark.parametrize("scale", SMALLER)
def test_a_weaker_teacher_stays_weaker(scale: Scale) -> None:
    small = at_scale(RECIPES["cifar100-weak-teacher"].make(), scale)
    assert small.teacher.network is not None
    teacher, student = (
        sum(parameter.numel() for parameter in create_network(name, 100, 3).parameters())
        for name in (small.teacher.network, small.student.name)
    )
    assert teacher < student


def test_smoke_needs_no_data_and_cpu_little_time() -> None:
    for name in OF_PAPER:
        assert at_scale(RECIPES[name].make(), "smoke").data.name == "bundled"
    small = at_scale(RECIPES["cifar100-table1-m5-kd"].make(), "cpu")
    assert small.data.name == "cifar-100"
    assert small.data.train_images is not None
    assert small.data.train_images * small.optimization.epochs <= 200_000


def test_the_recipe_for_two_cores_is_that_scale() -> None:
    assert RECIPES["cifar100-table1-small"].make() == at_scale(RECIPES["cifar100-table1-m1-kd"].make(), "cpu")
