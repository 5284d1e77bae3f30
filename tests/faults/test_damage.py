"""A damaged newest checkpoint is reported, the one before is used, and the final result is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.recipes import SHORT_DEMO
from support.runs import assert_same_run

FILES = ("weights.safetensors", "state.pt", "sha256.json")


def truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip_one_bit(content: bytes) -> bytes:
    damaged = bytearray(content)
    position, bit = np.random.default_rng(len(content)).integers([len(content), 8])
    damaged[position] ^= 1 << int(bit)
    return bytes(damaged)


def empty(content: bytes) -> bytes:
    return b""


CASES = [(file, damage) for file in FILES for damage in (truncate, flip_one_bit, empty)]
QUICK = set(zip(FILES, (flip_one_bit, truncate, empty), strict=True))


@pytest.mark.parametrize(
    ("file", "damage"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(
    kdaug: Callable, stopped_run: Path, short_run: Path, file: str, damage: Callable[[bytes], bytes]
) -> None:
    valid, newest = sorted((stopped_run / "checkpoints").glob("step-*"))
    (newest / file).write_bytes(damage((newest / file).read_bytes()))
    result = kdaug(*SHORT_DEMO, "--run.dir", stopped_run, "--run.resume")
    assert (result.code, result.err) == (0, "")
    first, second, *_ = result.out.splitlines()
    assert first.startswith(f"warning: checkpoint {newest} is damaged (")
    assert second == f"continuing at step {int(valid.name[5:])} of 16"
    assert_same_run(stopped_run, short_run)
