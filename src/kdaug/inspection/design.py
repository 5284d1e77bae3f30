"""Which views of which training images are inspected."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdaug.data.images import balanced_subset
from kdaug.errors import InputError
from kdaug.rng import Stream, permutation
from kdaug.training.batches import Indices
from kdaug.training.context import TrainContext
from kdaug.views.description import describe
from kdaug.views.policies import AugMix, RandAugment, TimmRandAugment, create_policy
from kdaug.views.policies.composition import flatten_policies
from kdaug.views.space import Space

DEFAULT_IMAGES, DEFAULT_VIEWS = 2_000, 4
_DEFAULT_FRACTIONS = 0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9
"""Of the full level of the space: magnitudes 0, 1, 2, 3, 5, 7, 9 in a space of ten levels."""
_LEAST_IMAGES_PER_OP = 100
"""Images that show an op at every level, if there are as many."""


@dataclass(frozen=True)
class InspectionRequest:
    """How much is inspected.

    images: number of training images, balanced over the classes; all if there are fewer. views_per_image: views of each
    under the recipe's own policy; None: 4, or as many as the run has epochs. magnitudes: of the policy and levels of
    single ops; None: seven from 0 to nine tenths of the full level.
    """

    images: int = DEFAULT_IMAGES
    views_per_image: int | None = None
    magnitudes: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Design:
    """The views to inspect.

    indices: the training images, int64 [N], sorted. epochs: those whose views are made under the recipe's own policy.
    magnitude: of the recipe's policy; None if it has none. magnitudes: those that the policy is inspected at, the own
    one included; empty if it has none. space, ops, levels: the ops that are applied alone, and at which levels.
    ops_per_image: how many of them each image shows.
    """

    indices: Indices
    epochs: tuple[int, ...]
    magnitude: float | None
    magnitudes: tuple[float, ...]
    space: Space
    ops: tuple[str, ...]
    levels: tuple[float, ...]
    ops_per_image: int

    def policy_settings(self) -> Iterator[tuple[int, float | None]]:
        """Each (epoch, magnitude): all epochs at the policy's own magnitude, the first one at the others."""
        yield from ((epoch, self.magnitude) for epoch in self.epochs)
        yield from ((self.epochs[0], magnitude) for magnitude in self.magnitudes if magnitude != self.magnitude)

    def ops_of(self, indices: Indices) -> NDArray[np.int64]:
        """Positions in `ops` of the ops that each of the images `indices` shows alone: int64 [N,ops_per_image].

        The images are dealt to the ops in a random order, so that the order of the dataset has no influence.
        """
        rank = np.argsort(permutation(0, 0, len(self.indices), Stream.SUBSET))
        first = rank[np.searchsorted(self.indices, indices)] * self.ops_per_image
        return (first[:, None] + np.arange(self.ops_per_image)) % len(self.ops)

    def count(self) -> int:
        """The number of all views, the unaugmented images included."""
        per_image = 1 + len(list(self.policy_settings())) + self.ops_per_image * len(self.levels)
        return len(self.indices) * per_image


def create_design(context: TrainContext, request: InspectionRequest) -> Design:
    """The views for `request`.

    Raises InputError if the policy has no ops with levels, or a number is out of range.
    """
    if request.images < 1:
        raise InputError(f"images is {request.images}, but must be at least 1")
    space, ops = inspected_space(context)
    magnitude = policy_magnitude(context.recipe.views.policy, context.recipe.optimization.epochs)
    levels = _levels(space, magnitude, request.magnitudes)
    for level in levels:
        space.check_level(level, "a magnitude")
    labels = context.dataset.train.labels
    indices = balanced_subset(labels, min(request.images, len(labels)))
    own = () if magnitude is None else (magnitude,)
    return Design(
        indices,
        _epochs(context, request.views_per_image),
        magnitude,
        tuple(sorted({*levels, *own})) if own else (),
        space,
        ops,
        levels,
        min(len(ops), math.ceil(_LEAST_IMAGES_PER_OP * len(ops) / len(indices))),
    )


def inspected_space(context: TrainContext) -> tuple[Space, tuple[str, ...]]:
    """The space of the recipe's policy, and its ops without "none". Raises InputError if it has no ops with levels."""
    spec, epochs = context.recipe.views.policy, context.recipe.optimization.epochs
    parts = describe(create_policy(spec, epochs=epochs), context.dataset.size)
    if not parts:
        raise InputError(
            f"policy {spec} has no ops to inspect",
            "set views.policy to one that has, such as randaugment-n2-m5@paper-geometric; kdaug views lists them",
        )
    return parts[0].space, tuple(op for op in parts[0].ops if op != "none")


def policy_magnitude(spec: str, epochs: int) -> float | None:
    """The magnitude in a policy's specification; None if it has none."""
    for part in flatten_policies([create_policy(spec, epochs=epochs)]):
        if isinstance(part, RandAugment | TimmRandAugment | AugMix):
            return float(part.magnitude)
    return None


def _levels(space: Space, magnitude: float | None, requested: Sequence[float] | None) -> tuple[float, ...]:
    if requested is not None:
        if not requested:
            raise InputError("magnitudes is empty, but must have at least one number")
        return tuple(sorted(set(map(float, requested))))
    levels = {round(fraction * space.full_level, 6) for fraction in _DEFAULT_FRACTIONS}
    if space.integer_levels:
        levels = {float(round(level)) for level in levels}
    return tuple(sorted(map(float, levels)))


def _epochs(context: TrainContext, views_per_image: int | None) -> tuple[int, ...]:
    """Evenly spaced epochs under the recipe's policy, because some policies are schedules over the run."""
    count = context.recipe.optimization.epochs
    wanted = min(DEFAULT_VIEWS, count) if views_per_image is None else views_per_image
    if not 1 <= wanted <= count:
        raise InputError(
            f"views_per_image is {wanted}, but must be from 1 to {count}, the epochs of the recipe, each of which has "
            "one view of an image",
            "set optimization.epochs to have more",
        )
    return tuple(np.linspace(0, count - 1, wanted).round().astype(int).tolist())
