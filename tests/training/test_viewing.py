"""What the networks see of a batch: cut in parts as it is, with the magnitude that was planned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console

from kdaug.config import Recipe
from kdaug.training.resolving import resolve
from kdaug.training.setup import prepare
from kdaug.training.viewing import training_views
from kdaug.views.magnitude import planned_magnitude


def test_a_batch_is_cut_in_parts_that_belong_together(tiny: Callable[..., Recipe]) -> None:
    setup = prepare(resolve(tiny({"views.policy": "randaugment-n2-m5@paper-geometric"})), Console(quiet=True))
    viewed = next(training_views(setup, 5))
    parts = viewed.chunk(3)
    assert len(parts) == 3
    assert np.concatenate([part.key.indices for part in parts]).tolist() == viewed.key.indices.tolist()
    for name in ("pixels", "labels", "magnitude"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(viewed, name))
    assert {(part.key.step, part.key.epoch, part.key.view_epoch) for part in parts} == {(5, 1, 1)}
    plan = setup.policy.plan(0, 1, viewed.key.indices, (28, 28))
    assert torch.equal(viewed.magnitude, torch.tensor(planned_magnitude(plan), dtype=torch.float32))
    assert viewed.magnitude.std() > 0.1
