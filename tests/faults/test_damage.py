"""The newest checkpoint was damaged on disk: that is said, the one before is used, and the end is the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

FILES = ("weights.safetensors", "state.pt", "sha256.json")


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def one_bit_flipped(content: bytes) -> bytes:
    damaged = bytearray(content)
    place, bit = np.random.default_rng(len(content)).integers([len(content), 8])
    damaged[place] ^= 1 << int(bit)
    return bytes(damaged)


def emptied(content: bytes) -> bytes:
    return b""


EVERY_DAMAGE = [(file, damage) for file in FILES for damage in (truncated, one_bit_flipped, emptied)]
QUICK = set(zip(FILES, (one_bit_flipped, truncated, emptied), strict=True))


@pytest.mark.parametrize(
    ("file", "damage"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in EVERY_DAMAGE],
)
def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    kdaug: Callable,
    short: list[str],
    stopped_short: Path,
    tmp_path: Path,
    uninterrupted_short: Path,
    assert_same_run: Callable,
    file: str,
    damage: Callable[[bytes], bytes],
) -> None:
    run = shutil.copytree(stopped_short, tmp_path / "run")
    sound, newest = sorted((run / "checkpoints").glob("step-*"))
    (newest / file).write_bytes(damage((newest / file).read_bytes()))
    said = kdaug(*short, "--run.dir", run, "--run.resume")
    assert (said.code, said.err) == (0, "")
    first, second, *_ = said.out.splitlines()
    assert first.startswith(f"checkpoint {newest} is damaged (")
    assert second == f"continuing at step {int(sound.name[5:])} of 16"
    assert_same_run(run, uninterrupted_short)
