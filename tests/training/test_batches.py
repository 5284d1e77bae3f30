"""What the networks see of a batch: cut in parts as it is, with the magnitude that was planned."""

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


def test_a_batch_is_cut_in_parts_that_belong_together(tiny: Callable[..., Recipe]) -> None:
    context = build_context(resolve(tiny({"views.policy": "randaugment-n2-m5@paper-geometric"})), Console(quiet=True))
    view_batch = next(training_batches(context, 5))
    parts = view_batch.chunk(3)
    assert len(parts) == 3
    assert np.concatenate([part.key.indices for part in parts]).tolist() == view_batch.key.indices.tolist()
    for name in ("pixels", "labels", "magnitude"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(view_batch, name))
    assert {(part.key.step, part.key.epoch, part.key.view_epoch) for part in parts} == {(5, 1, 1)}
    plan = context.policy.plan(0, 1, view_batch.key.indices, (28, 28))
    assert torch.equal(view_batch.magnitude, torch.tensor(planned_magnitude(plan), dtype=torch.float32))
    assert view_batch.magnitude.std() > 0.1
