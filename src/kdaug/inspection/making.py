"""Makes the views that are inspected: unaugmented, under the policy as in training, and under one op alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.data import EncodedImages
from kdaug.data.loader import Batch, BatchKey
from kdaug.errors import InputError
from kdaug.inspection.design import inspected_space, policy_magnitude
from kdaug.inspection.keys import ViewKey
from kdaug.training.batches import Indices, make_views, plan_views, unaugmented_batches
from kdaug.training.context import TrainContext
from kdaug.views import ViewPlan, apply
from kdaug.views.magnitude import planned_magnitude
from kdaug.views.policies import policy_from_views, spec_with_magnitude
from kdaug.views.single_op import plan_single_ops
from kdaug.views.space import Space


@dataclass(frozen=True, eq=False)
class Views:
    """N views of training images, one each.

    indices, labels: of the images, int64 [N]. pixels: uint8 [N,H,W,C]. plan: the ops; None if there are none.
    planned_magnitude: float64 [N], see `planned_magnitude`. partner_labels int64 [N], own_share float [N]: of mixed
    views (mixup, CutMix); None if each view shows one image.
    """

    indices: Indices
    labels: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    plan: ViewPlan | None
    planned_magnitude: NDArray[np.float64]
    partner_labels: NDArray[np.int64] | None = None
    own_share: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def steps(self, row: int) -> list[tuple[Any, ...]]:
        """The ops of view `row`, see `ViewPlan.steps`."""
        return [] if self.plan is None else self.plan.steps(row)


def unaugmented_views(batch: Batch) -> Views:
    """The images of a batch as they are."""
    return Views(batch.key.indices, batch.labels, batch.images, None, np.zeros(len(batch.labels)))


def policy_views(
    context: TrainContext, epoch: int, magnitude: float | None, batches: Iterable[Indices]
) -> Iterator[Views]:
    """The views of `epoch` for each of `batches`, as the student gets them if the policy has this magnitude.

    magnitude: None: that of the recipe. Unreadable images are left out.
    """
    at_magnitude = _with_magnitude(context, magnitude)
    keys = (BatchKey(step, epoch, indices, epoch) for step, indices in enumerate(batches))
    for batch in make_views(at_magnitude, keys, replace_unreadable=False):
        indices, mixed = batch.key.indices, batch.mixed_labels
        yield Views(
            indices,
            batch.labels.numpy(),
            batch.pixels.numpy(),
            plan_views(at_magnitude, epoch, indices),
            batch.magnitude.double().numpy(),
            None if mixed is None else mixed.partner_labels.numpy(),
            None if mixed is None else mixed.own_weight.double().numpy(),
        )


def single_op_views(context: TrainContext, space: Space, batch: Batch, ops: Sequence[str], level: float) -> Views:
    """Each image of an unaugmented batch under one op alone, exactly at `level`. ops: one of `space` for each image."""
    indices, dataset = batch.key.indices, context.dataset
    sample_ids = dataset.train.sample_ids(indices)
    plan = plan_single_ops(space, ops, level, dataset.fill, context.recipe.views.seed, sample_ids, dataset.size)
    pixels = apply(batch.images, plan) if len(plan) else batch.images
    return Views(indices, batch.labels, pixels, plan, planned_magnitude(plan))


def make_view(context: TrainContext, key: ViewKey) -> Views:
    """The one view with this key. Raises InputError if there is no such view, or its image cannot be read."""
    return make_all(context, [key])[key]


def make_all(context: TrainContext, keys: Iterable[ViewKey]) -> dict[ViewKey, Views]:
    """The view of each of `keys`, by key; those that share a setting are made together.

    Raises InputError for a key that is none of the recipe's views, and if an image cannot be read.
    """
    data = replace(context.recipe.data, workers=0)  # starting processes takes longer than decoding a few images
    context = replace(context, recipe=replace(context.recipe, data=data))
    groups: dict[ViewKey, list[ViewKey]] = {}
    for key in dict.fromkeys(keys):
        _check_key(context, key)
        groups.setdefault(replace(key, image=0), []).append(key)
    made: dict[ViewKey, Views] = {}
    for setting, members in groups.items():
        views = _make_setting(context, setting, np.array([key.image for key in members], np.int64))
        row_of = {index: row for row, index in enumerate(views.indices.tolist())}
        for key in members:
            if key.image not in row_of:
                raise InputError(f"image {context.dataset.train.name_of(key.image)} cannot be read")
            made[key] = _row(views, row_of[key.image])
    return made


def _make_setting(context: TrainContext, setting: ViewKey, indices: Indices) -> Views:
    if setting.epoch is not None:
        (views,) = policy_views(context, setting.epoch, setting.magnitude, [indices])
        return views
    (batch,) = unaugmented_batches(context, [indices])
    if setting.op is None or setting.level is None:
        return unaugmented_views(batch)
    space, _ = inspected_space(context)
    return single_op_views(context, space, batch, [setting.op] * len(batch.labels), setting.level)


def _check_key(context: TrainContext, key: ViewKey) -> None:
    images, epochs = len(context.dataset.train), context.epochs
    if not 0 <= key.image < images:
        raise InputError(f"view {key}: image is {key.image}, but must be from 0 to {images - 1}")
    if key.epoch is not None and not 0 <= key.epoch < epochs:
        raise InputError(f"view {key}: epoch is {key.epoch}, but must be from 0 to {epochs - 1}")


def _row(views: Views, row: int) -> Views:
    rows = slice(row, row + 1)
    columns: dict[str, Any] = {field.name: getattr(views, field.name) for field in fields(views)}
    return replace(views, **{name: column[rows] for name, column in columns.items() if column is not None})


def _with_magnitude(context: TrainContext, magnitude: float | None) -> TrainContext:
    """`context` with another magnitude of its policy."""
    recipe = context.recipe
    if magnitude is None or magnitude == policy_magnitude(recipe.views.policy, recipe.optimization.epochs):
        return context
    value = int(magnitude) if float(magnitude).is_integer() else magnitude
    views = replace(recipe.views, policy=spec_with_magnitude(recipe.views.policy, value))
    encoded = isinstance(context.dataset.train, EncodedImages)
    policy = policy_from_views(views, context.dataset.fill, encoded, epochs=recipe.optimization.epochs)
    return replace(context, recipe=replace(recipe, views=views), policy=policy)
