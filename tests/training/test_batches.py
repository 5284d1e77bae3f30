"""Batches of views: their parts and their planned magnitudes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console

from kdaug.config import Recipe
from kdaug.training.batches import training_batches
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve
from kdaug.views.magnitude import planned_magnitude


def test_a_batch_is_split_into_consistent_parts(tiny_recipe: Callable[..., Recipe]) -> None:
    recipe = tiny_recipe({"views.policy": "randaugment-n2-m5@paper-geometric"})
    context = build_context(resolve(recipe), Console(quiet=True))
    batch = next(training_batches(context, 5))
    parts = batch.chunk(3)
    assert len(parts) == 3
    assert np.concatenate([part.key.indices for part in parts]).tolist() == batch.key.indices.tolist()
    for name in ("pixels", "labels", "magnitude"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(batch, name))
    assert {(part.key.step, part.key.epoch, part.key.view_epoch) for part in parts} == {(5, 1, 1)}
    plan = context.policy.plan(0, 1, batch.key.indices, (28, 28))
    assert torch.equal(batch.magnitude, torch.tensor(planned_magnitude(plan), dtype=torch.float32))
    assert batch.magnitude.std() > 0.1
