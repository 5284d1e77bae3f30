"""Estimated costs of recipes, compared with operations counted by hand and on the networks themselves."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from support.tools import load_tool

from kdaug.config import Adversary, Network, Optimization, Recipe, Supervision, Teacher
from kdaug.recipes import counted_operations
from kdaug.recipes.cost import GPU_OPERATIONS_PER_SECOND, Cost, estimate_cost
from kdaug.recipes.named import load_table

ROOT = Path(__file__).parents[2]
OPERATIONS = {("s", 32): 10, ("t", 32): 7, ("t", 64): 28}


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/count_operations.py."""
    return load_tool("count_operations")


def cost_of(recipe: Recipe, existing_teacher: tuple[str, int] | None = None) -> float:
    return estimate_cost(recipe, 100, 32, lambda *key: OPERATIONS[key], existing_teacher).operations


def test_student_costs_three_forward_passes_per_view() -> None:
    assert cost_of(Recipe(student=Network("s"), optimization=Optimization(epochs=5, clean_epochs=1))) == 3 * 10 * 600


def test_trained_teacher_costs_training_and_a_pass_per_view() -> None:
    recipe = Recipe(
        student=Network("s"), teacher=Teacher("train", network="t", epochs=2), optimization=Optimization(epochs=5)
    )
    assert cost_of(recipe) == 3 * 10 * 500 + 7 * 500 + 3 * 7 * 200


def test_existing_teacher_costs_passes_at_its_own_image_size() -> None:
    recipe = Recipe(student=Network("s"), teacher=Teacher("run:x"), optimization=Optimization(epochs=5))
    assert cost_of(recipe, existing_teacher=("t", 64)) == 3 * 10 * 500 + 28 * 500


@pytest.mark.parametrize(("when", "epochs"), [("all", 6), ("policy", 5), ("clean", 1)])
def test_teacher_costs_only_in_epochs_that_use_it(when: str, epochs: int) -> None:
    recipe = Recipe(
        student=Network("s"),
        teacher=Teacher("run:x", network=None),
        supervision=Supervision(when=when),
        optimization=Optimization(epochs=5, clean_epochs=1),
    )
    assert cost_of(recipe, existing_teacher=("t", 32)) == 3 * 10 * 600 + 7 * 100 * epochs


def test_adversary_doubles_the_batch_and_adds_its_steps() -> None:
    recipe = Recipe(student=Network("s"), adversary=Adversary(steps=5), optimization=Optimization(epochs=1))
    assert cost_of(recipe) == (2 * 3 + 5 * 2) * 10 * 100


def test_gpu_hours_are_operations_at_the_assumed_rate() -> None:
    assert Cost(GPU_OPERATIONS_PER_SECOND * 7200).gpu_hours == pytest.approx(2)


def test_counted_operations_equal_the_sum_over_layers(tool: ModuleType) -> None:
    """Two per multiply-add in the 3x3 convolutions, two 1x1 shortcuts and the classifier of WRN-10-1 at 32 pixels."""
    pairs = [(3, 16, 32), (16, 16, 32), (16, 16, 32), (16, 32, 16), (32, 32, 16), (32, 64, 8), (64, 64, 8)]
    by_hand = 2 * sum(9 * inputs * outputs * side**2 for inputs, outputs, side in pairs)
    by_hand += 2 * (16 * 32 * 16**2 + 32 * 64 * 8**2 + 64 * 10)
    assert tool.count_forward_operations("wide_resnet10_1", 10, 3, (32, 32)) == by_hand


@pytest.mark.parametrize(
    "entry", [key for key in load_table("operations") if "_b8" not in key and "pyramid" not in key]
)
def test_operations_table_equals_counts_on_the_networks(tool: ModuleType, entry: str) -> None:
    network, size, classes = entry.split()
    channels = 1 if size == "28" else 3
    counted = tool.count_forward_operations(network, int(classes), channels, (int(size), int(size)))
    assert counted_operations(network, int(size), int(classes)) == counted


@pytest.mark.slow
def test_operations_table_is_what_its_tool_writes(tool: ModuleType) -> None:
    assert tool.count_all() == load_table("operations")
