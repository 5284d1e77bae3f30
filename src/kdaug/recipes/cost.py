"""The cost of training a recipe, estimated before it runs: operations, and GPU hours at an assumed rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdaug.config import Recipe, derive_teacher_recipe

GPU_OPERATIONS_PER_SECOND = 60e12
"""Assumed, not measured: a fifth of an A100's peak of 312e12 in bfloat16, about what convolutions reach.

EfficientNets stay well below it, because their convolutions are depthwise. benchmarks/training_step.py measures a GPU.
"""

ForwardOperations = Callable[[str, int], int]
"""(network name, image size in pixels) -> operations of one forward pass on one image."""


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a run and of training its teacher, without evaluations."""

    operations: float

    @property
    def gpu_hours(self) -> float:
        """Hours at GPU_OPERATIONS_PER_SECOND."""
        return self.operations / GPU_OPERATIONS_PER_SECOND / 3600


def estimate_cost(
    recipe: Recipe,
    images: int,
    image_size: int,
    forward: ForwardOperations,
    existing_teacher: tuple[str, int] | None = None,
) -> Cost:
    """The cost of `recipe` with `images` training images of `image_size` pixels.

    existing_teacher: network and image size of a teacher that comes from a run. A backward pass counts as two forward
    passes. A step of the adversary counts as two: forward, and the gradient of the image only.
    """
    epochs, adversary_steps = recipe.optimization.total_epochs, recipe.adversary.steps
    student = forward(recipe.student.name, image_size)
    per_view = 3 * student * (2 if adversary_steps else 1) + 2 * adversary_steps * student
    operations = float(per_view) * images * epochs
    if recipe.teacher.source == "none":
        return Cost(operations)
    teacher_network = recipe.teacher.network or recipe.student.name
    name, size = existing_teacher or (teacher_network, recipe.teacher.image_size or image_size)
    epochs_by_when = {
        "all": epochs, "policy": recipe.optimization.epochs, "clean": recipe.optimization.clean_epochs,
    }  # fmt: skip
    operations += float(forward(name, size)) * images * epochs_by_when[recipe.supervision.when]
    if recipe.teacher.source == "train":
        folds = recipe.teacher.folds
        trained_images = images if folds is None else (folds - 1) * images  # of all its networks
        operations += estimate_cost(derive_teacher_recipe(recipe), trained_images, image_size, forward).operations
    return Cost(operations)
