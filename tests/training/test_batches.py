"""Batches of views: their parts and their planned magnitudes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from rich.console import Console

from kdaug.config import Recipe
from kdaug.training import batches
from kdaug.training.batches import dataset_fingerprint, training_batches
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import resolve
from kdaug.views.magnitude import planned_magnitude
from kdaug.views.plan import ViewPlan


def test_a_batch_is_split_into_consistent_parts(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe({"views.policy": "randaugment-n2-m5@paper-geometric"})
    context = build_context(resolve(recipe), Console(quiet=True))
    batch = next(training_batches(context, 5))
    parts = batch.chunk(3)
    assert len(parts) == 3
    assert np.concatenate([part.key.indices for part in parts]).tolist() == batch.key.indices.tolist()
    for name in ("pixels", "labels", "magnitude", "visible"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert {(part.key.step, part.key.epoch, part.key.view_epoch) for part in parts} == {(5, 1, 1)}
    plan = context.policy.plan(0, 1, batch.key.indices, (28, 28))
    assert torch.equal(batch.magnitude, torch.tensor(planned_magnitude(plan), dtype=torch.float32))
    assert batch.magnitude.std() > 0.1


def test_images_augmented_in_groups_give_the_views_of_single_batches(
    tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two epochs of four batches of 64 images: groups of 3 batches end with their epoch. Mixing adds partners."""
    sizes = list[int]()
    plan_views = batches.plan_views

    def noted(context: TrainContext, epoch: int, indices: np.ndarray) -> ViewPlan:
        sizes.append(len(indices))
        return plan_views(context, epoch, indices)

    monkeypatch.setattr(batches, "plan_views", noted)
    for settings, at_once, expected in (
        ({}, 200, [192, 64, 192, 64]),
        ({}, 1, [64] * 8),
        ({"views.mixup": 0.5}, 10_000, None),
    ):
        context = build_context(resolve(tiny_recipe(settings)), Console(quiet=True))
        views = {}
        for limit in (at_once, 1):
            sizes.clear()
            monkeypatch.setattr(batches, "_IMAGES_AT_ONCE", limit)
            views[limit] = list(training_batches(context, 0))
            assert expected in (None, sizes) or limit != at_once
        for grouped, single in zip(views[at_once], views[1], strict=True):
            assert grouped.key.step == single.key.step
            assert grouped.key.view_epoch == single.key.view_epoch
            assert grouped.key.indices.tolist() == single.key.indices.tolist()
            for name in ("pixels", "labels", "magnitude", "visible"):
                assert torch.equal(getattr(grouped, name), getattr(single, name)), name


def test_the_fingerprint_of_views_has_no_setting_without_effect(tiny_recipe: Callable[..., Recipe]) -> None:
    """Label stores that were made before soft crops existed lack their setting."""
    without, soft = (
        dataset_fingerprint(build_context(resolve(tiny_recipe({"views.crop": crop})), Console(quiet=True))).views
        for crop in ("pad", "soft")
    )
    assert "views.soft_crop_deviation" not in without
    assert soft["views.soft_crop_deviation"] == 0.3
