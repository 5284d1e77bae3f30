"""The loss of two images is not a number: the run names them, keeps what it had before, and can go on from there."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from torch import Tensor

from kdaug.data.loader import training_keys


@pytest.mark.parametrize(("checkpoint_every", "kept"), [(1, [4, 5]), (4, [4])])
def test_a_loss_that_is_nan_is_named_by_step_and_images(
    kdaug: Callable,
    short: list[str],
    each_step: Callable,
    tmp_path: Path,
    uninterrupted_short: Path,
    assert_one_line: Callable,
    assert_same_run: Callable,
    checkpoint_every: int,
    kept: list[int],
) -> None:
    """Also where it is noticed two steps later, when the weights have long been spoilt."""
    run = tmp_path / "run"
    command = [*short, "--run.checkpoint-steps", str(checkpoint_every), "--run.dir", run]

    def spoil(step: int, logits: Tensor) -> Tensor | None:
        if step != 6:
            return None
        spoilt = logits.clone()
        spoilt[[2, 29]] = math.nan
        return spoilt

    with each_step(spoil):
        said = kdaug(*command)
    (key,) = islice(training_keys(256, 32, 2, seed=0), 5, 6)
    assert said.code == 2
    assert_one_line(
        said.err,
        f"the loss is nan at step 6 (epoch 0), of image #{key.indices[2]}, #{key.indices[29]}; training stopped, the "
        "checkpoint before it is kept. Lower optimization.learning_rate",
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [f"step-{step:08}" for step in kept]
    assert not (run / "last.safetensors").exists()
    resumed = kdaug(*command, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert f"continuing at step {kept[-1]} of 16" in resumed.out
    assert_same_run(run, uninterrupted_short)
