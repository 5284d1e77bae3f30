"""What a recipe will cost before it is trained: operations of its real networks, and hours at a stated rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kdaug.config import Recipe, derive_teacher_recipe

GPU_OPERATIONS_PER_SECOND = 60e12
"""A fifth of what an A100 multiplies in bfloat16 at best (312e12): a guess at what convolutions reach, not measured.

EfficientNets, whose convolutions are depthwise, stay well below it; what your GPU reaches, benchmarks/training_step.py
says.
"""

Forward = Callable[[str, int], int]
"""Operations of a forward pass of a network (by name) for one image of a side in pixels."""


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a whole run, a teacher to be trained included; evaluations are not."""

    operations: float

    @property
    def gpu_hours(self) -> float:
        """At GPU_OPERATIONS_PER_SECOND."""
        return self.operations / GPU_OPERATIONS_PER_SECOND / 3600


def estimate(recipe: Recipe, images: int, side: int, forward: Forward, answers: tuple[str, int] | None = None) -> Cost:
    """The cost of a recipe with `images` training images of `side` pixels.

    `answers`: network and side of the teacher, where the recipe names a run. A backward pass counts as two forward
    ones, and each step of an adversary as one forward and, since only the image's gradient is wanted, one more.
    """
    o, adversary = recipe.optimization, recipe.adversary
    epochs = o.all_epochs
    student = forward(recipe.student.name, side)
    of_a_view = 3 * student * (2 if adversary.steps else 1) + 2 * adversary.steps * student
    operations = float(of_a_view) * images * epochs
    if recipe.teacher.source == "none":
        return Cost(operations)
    taught = {"all": epochs, "policy": o.epochs, "clean": o.clean_epochs}[recipe.supervision.when]
    name, its_side = answers or (recipe.teacher.network or recipe.student.name, recipe.teacher.image_size or side)
    operations += float(forward(name, its_side)) * images * taught
    if recipe.teacher.source == "train":
        operations += estimate(derive_teacher_recipe(recipe), images, side, forward).operations
    return Cost(operations)
