"""A view is a pure function of image, policy, seed, epoch and index: threads, batches and processes have no effect."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kdaug import apply, create_policy
from kdaug.views.kernels import dispatch
from kdaug.views.policies.spec import SPEC_DESCRIPTIONS

COUNT, SIZE, SEED, EPOCH = 23, (14, 17), 5, 61
SPECS = [spec for spec in SPEC_DESCRIPTIONS if not spec.startswith("file:")] + [
    "autoaugment-cifar10,pad-crop-4,flip,cutout-6,random-erasing-p0.5"
]


def views(spec: str, indices: np.ndarray, threads: int = 1) -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (COUNT, *SIZE, 3), np.uint8)[indices]
    return apply(images, create_policy(spec, epochs=200).plan(SEED, EPOCH, indices, SIZE), threads)


@pytest.mark.parametrize("spec", SPECS)
def test_threads_batches_and_ranks_do_not_change_a_byte(spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_MIN_CHUNK_BYTES", 1)  # otherwise so few bytes get one thread
    everything = np.arange(COUNT)
    expected = views(spec, everything)
    for threads in (2, 3, 50):
        assert_array_equal(views(spec, everything, threads), expected)
    for part in (1, 4, 22):
        starts = range(0, COUNT, part)
        assert_array_equal(np.concatenate([views(spec, everything[s : s + part]) for s in starts]), expected)
    for world_size in (2, 3):
        for rank in range(world_size):
            assert_array_equal(views(spec, everything[rank::world_size]), expected[rank::world_size])
    backwards = everything[::-1].copy()
    assert_array_equal(views(spec, backwards), expected[::-1])


def digest() -> str:
    """SHA-256 of the views of all policies."""
    content = hashlib.sha256()
    for spec in SPECS:
        content.update(views(spec, np.arange(COUNT), threads=2).tobytes())
    return content.hexdigest()


def test_another_process_gives_the_same_bytes() -> None:
    process = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
    assert process.stdout.split() == [digest()]


if __name__ == "__main__":
    print(digest())
