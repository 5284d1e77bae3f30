"""A NaN loss of two images: they are named, the checkpoint before is kept, and the run resumes from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from support.commands import assert_one_line
from support.recipes import SHORT_DEMO
from support.runs import assert_same_run
from support.steps import after_each_forward
from torch import Tensor

from kdaug.data.loader import training_keys


@pytest.mark.parametrize(("checkpoint_steps", "kept"), [(1, [4, 5]), (4, [4])])
def test_a_nan_loss_is_named_by_step_and_images(
    kdaug: Callable, tmp_path: Path, short_run: Path, checkpoint_steps: int, kept: list[int]
) -> None:
    """With fewer checkpoints, it is noticed two steps later, when the weights are no longer finite."""
    run = tmp_path / "run"
    command = [*SHORT_DEMO, "--run.checkpoint-steps", str(checkpoint_steps), "--run.dir", run]

    def make_nan(step: int, logits: Tensor) -> Tensor | None:
        if step != 6:
            return None
        changed = logits.clone()
        changed[[2, 29]] = math.nan
        return changed

    with after_each_forward(make_nan):
        result = kdaug(*command)
    (key,) = islice(training_keys(256, 32, 2, seed=0), 5, 6)
    assert result.code == 2
    assert_one_line(
        result.err,
        f"the loss is nan at step 6 (epoch 0), of image #{key.indices[2]}, #{key.indices[29]}; training stopped, the "
        "previous checkpoint was kept; lower --optimization.learning-rate",
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step-{step:08}" for step in kept]
    assert not (run / "last.safetensors").exists()
    resumed = kdaug(*command, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert f"continuing at step {kept[-1]} of 16" in resumed.out
    assert_same_run(run, short_run)
