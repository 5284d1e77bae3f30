"""The loader: the seed alone determines which images come when, workers change no byte, runs resume at any step."""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from kdaug.data import ArrayImages, EncodedImages, loader
from kdaug.data.crops import CenterCrop, RandomResizedCrop
from kdaug.data.loader import Batch, BatchKey, UnreadableImages, evaluation_keys, load, prefetch, training_keys
from kdaug.errors import InputError

COUNT = 10
CROP = RandomResizedCrop(8, 0, 0.5)
seeds = st.integers(0, 2**63 - 1)
counts_and_batches = st.integers(1, 60).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


def flat(keys: list[BatchKey]) -> list[tuple[int, int, list[int]]]:
    return [(key.step, key.epoch, key.indices.tolist()) for key in keys]


def as_bytes(batches: list[Batch]) -> list[tuple[int, int, bytes, bytes, bytes]]:
    return [(b.key.step, b.key.epoch, b.key.indices.tobytes(), b.labels.tobytes(), b.images.tobytes()) for b in batches]


def unreadable_images(allowed_share: float = 1.0) -> UnreadableImages:
    return UnreadableImages(COUNT, allowed_share)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> EncodedImages:
    """Ten images of random pixels and sizes; labels 0, 10, 20, ..."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    paths = []
    for i in range(COUNT):
        paths.append(folder / f"{i}.png")
        Image.fromarray(rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)).save(paths[-1])
    return EncodedImages(tuple(paths), np.arange(COUNT) * 10)


@pytest.fixture
def damaged(photos: EncodedImages, tmp_path: Path) -> Callable[..., EncodedImages]:
    """The photos; those at the given rows cannot be decoded."""

    def make(*rows: int) -> EncodedImages:
        paths = list(photos.files)
        for row in rows:
            paths[row] = tmp_path / f"bad{row}.png"
            paths[row].write_text("no image")
        return EncodedImages(tuple(paths), photos.labels)

    return make


def training_batches(images: EncodedImages, workers: int = 0, first_step: int = 0) -> list[Batch]:
    keys = training_keys(COUNT, 4, 2, seed=3, first_step=first_step)
    return list(load(images, keys, RandomResizedCrop(8, 3, 0.08), workers, unreadable_images()))


@given(counts_and_batches, st.integers(1, 4), seeds)
@settings(max_examples=50)
def test_an_epoch_has_each_image_at_most_once(sizes: tuple[int, int], epochs: int, seed: int) -> None:
    count, batch = sizes
    keys = list(training_keys(count, batch, epochs, seed))
    assert [key.step for key in keys] == list(range(count // batch * epochs))
    for epoch in range(epochs):
        batches = [key.indices for key in keys if key.epoch == epoch]
        assert {len(indices) for indices in batches} == {batch}
        assert len(batches) == count // batch
        indices = np.concatenate(batches)
        assert len(set(indices)) == len(indices)
        assert set(indices) <= set(range(count))


@given(counts_and_batches, st.integers(1, 4), seeds, st.data())
@settings(max_examples=50)
def test_keys_resume_at_any_step(sizes: tuple[int, int], epochs: int, seed: int, data: st.DataObject) -> None:
    count, batch = sizes
    whole = flat(list(training_keys(count, batch, epochs, seed)))
    step = data.draw(st.integers(0, len(whole)))
    assert flat(list(training_keys(count, batch, epochs, seed, step))) == whole[step:]


def test_each_epoch_and_seed_has_its_own_order() -> None:
    orders = {tuple(key.indices) for seed in range(5) for key in training_keys(100, 100, epochs=5, seed=seed)}
    assert len(orders) == 25
    assert tuple(range(100)) not in orders


def test_each_image_is_left_out_equally_often() -> None:
    times_used = np.bincount(np.concatenate([key.indices for key in training_keys(10, 4, epochs=1000, seed=0)]))
    assert np.abs(times_used - 800).max() < 5 * np.sqrt(1000 * 0.8 * 0.2)


def test_views_of_a_cycle_are_used_in_turn() -> None:
    without_cycle = list(training_keys(7, 3, epochs=4, seed=0))
    assert [(key.epoch, key.view_epoch) for key in without_cycle] == [(e, e) for e in (0, 0, 1, 1, 2, 2, 3, 3)]
    keys = list(training_keys(7, 3, epochs=4, seed=0, cycle=2))
    assert [key.view_epoch for key in keys] == [0, 0, 1, 1, 0, 0, 1, 1]
    assert flat(keys) == flat(without_cycle), "the order of the images does not repeat"
    resumed = training_keys(7, 3, epochs=4, seed=0, first_step=3, cycle=2)
    assert [key.view_epoch for key in resumed] == [1, 0, 0, 1, 1]


def test_a_reused_view_has_the_same_crop(photos: EncodedImages) -> None:
    keys = training_keys(COUNT, COUNT, epochs=3, seed=0, cycle=2)
    images = [
        dict(zip(batch.key.indices.tolist(), (image.tobytes() for image in batch.images), strict=True))
        for batch in load(photos, keys, CROP, 0, unreadable_images())
    ]
    assert images[2] == images[0]
    assert all(images[1][row] != images[0][row] for row in range(COUNT))


@given(st.integers(0, 100), st.integers(1, 40))
@settings(max_examples=50)
def test_evaluation_uses_every_image_once_in_order(count: int, batch: int) -> None:
    keys = list(evaluation_keys(count, batch))
    assert [i for key in keys for i in key.indices] == list(range(count))
    assert all(len(key.indices) == batch for key in keys[:-1])
    assert all(0 < len(key.indices) <= batch for key in keys[-1:])


def test_batches_from_memory_are_the_images_of_their_keys() -> None:
    images = ArrayImages(np.arange(COUNT, dtype=np.uint8).reshape(COUNT, 1, 1, 1), np.arange(COUNT) * 10)
    for batch in load(images, training_keys(COUNT, 3, 2, seed=0), CenterCrop(1), 2, unreadable_images()):
        assert_array_equal(batch.images.ravel(), batch.key.indices)
        assert_array_equal(batch.labels, batch.key.indices * 10)


def test_batches_from_files_are_the_crops_of_their_keys(photos: EncodedImages) -> None:
    batches = training_batches(photos)
    assert [(b.key.step, b.key.epoch) for b in batches] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    crop = RandomResizedCrop(8, 3, 0.08)
    for batch in batches:
        assert batch.images.dtype == np.uint8
        assert_array_equal(batch.labels, batch.key.indices * 10)
        for index, pixels in zip(batch.key.indices, batch.images, strict=True):
            image = Image.open(photos.files[index])
            box = crop.box(batch.key.epoch, int(index), image.width, image.height)
            assert_array_equal(pixels, np.asarray(image.resize((8, 8), Image.Resampling.BICUBIC, box=box)))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_no_byte(workers: int, photos: EncodedImages) -> None:
    assert as_bytes(training_batches(photos, workers)) == as_bytes(training_batches(photos, 0))


@pytest.mark.parametrize("step", range(5))
def test_batches_resume_at_any_step(step: int, photos: EncodedImages) -> None:
    assert as_bytes(training_batches(photos, first_step=step)) == as_bytes(training_batches(photos))[step:]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_does_not_use_global_generators(workers: int, photos: EncodedImages) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    training_batches(photos, workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_logged_once(
    workers: int, damaged: Callable[..., EncodedImages], caplog: pytest.LogCaptureFixture
) -> None:
    images = damaged(2, 7)
    keys = list(training_keys(COUNT, 5, epochs=3, seed=0))
    with caplog.at_level(logging.WARNING, "kdaug"):
        batches = list(load(images, keys, CROP, workers, unreadable_images()))
    for key, batch in zip(keys, batches, strict=True):
        kept = [i for i in key.indices if i not in (2, 7)]
        assert (batch.key.step, batch.key.epoch, batch.key.indices.tolist()) == (key.step, key.epoch, kept)
        assert batch.labels.tolist() == [10 * i for i in kept]
        assert len(batch.images) == len(kept)
    assert len(caplog.messages) == 2
    for row in (2, 7):
        assert any(str(images.files[row]) in text and "cannot identify" in text for text in caplog.messages)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_readable_image_replaces_an_unreadable_one(
    workers: int, damaged: Callable[..., EncodedImages]
) -> None:
    """Also in the key, so that it gets its own view. It may be in the same batch; the first image follows the last."""
    images, unreadable = damaged(2, 7, 8, 9), unreadable_images()
    replacement = {2: 3, 7: 0, 8: 0, 9: 0}
    keys = list(training_keys(COUNT, 5, epochs=2, seed=0))
    batches = list(load(images, keys, CROP, workers, unreadable, replace_unreadable=True))
    single = {
        (b.key.epoch, int(b.key.indices[0])): b.images[0]
        for b in load(images, training_keys(COUNT, 1, 2, seed=0), CROP, 0, unreadable_images())
        if len(b.labels)
    }
    for key, batch in zip(keys, batches, strict=True):
        assert batch.key.indices.tolist() == [replacement.get(i, i) for i in key.indices.tolist()]
        assert batch.labels.tolist() == [10 * i for i in batch.key.indices]
        for index, image in zip(batch.key.indices.tolist(), batch.images, strict=True):
            assert_array_equal(image, single[key.epoch, index])
    assert set(unreadable.names) == {str(images.files[row]) for row in replacement}


def test_a_batch_is_empty_if_no_replacement_is_readable(damaged: Callable[..., EncodedImages]) -> None:
    keys = evaluation_keys(COUNT, 5)
    (first, second) = load(damaged(*range(COUNT)), keys, CROP, 0, unreadable_images(), replace_unreadable=True)
    assert first.images.shape == second.images.shape == (0, 8, 8, 3)


def test_a_batch_without_a_readable_image_is_empty(damaged: Callable[..., EncodedImages]) -> None:
    batches = list(load(damaged(3, 4, 5), evaluation_keys(COUNT, 3), CROP, 0, unreadable_images()))
    assert [b.key.indices.tolist() for b in batches] == [[0, 1, 2], [], [6, 7, 8], [9]]
    assert [b.images.shape for b in batches] == [(3, 8, 8, 3), (0, 8, 8, 3), (3, 8, 8, 3), (1, 8, 8, 3)]


def test_a_key_without_indices_gives_an_empty_batch(photos: EncodedImages) -> None:
    """A rank gets one if fewer images are left than there are ranks."""
    keys = [BatchKey(0, 0, np.array([3]), 0), BatchKey(1, 0, np.array([], np.int64), 0)]
    assert [len(b.labels) for b in load(photos, keys, CROP, 0, unreadable_images())] == [1, 0]


def test_a_killed_worker_is_an_input_error(photos: EncodedImages) -> None:
    batches = load(photos, training_keys(COUNT, 2, 1000, seed=0), CROP, 2, unreadable_images())
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"a process that decodes images was killed .*; set run\.resume to continue"):
        list(batches)


def test_the_allowed_share_of_images_may_be_unreadable(damaged: Callable[..., EncodedImages]) -> None:
    batches = load(damaged(1, 8), evaluation_keys(COUNT, 2), CROP, 0, unreadable_images(0.2))
    assert sum(len(b.labels) for b in batches) == 8


@pytest.mark.parametrize(("allowed", "named"), [(0, [1]), (1, [1, 3]), (3, [1, 3, 4])])
def test_more_unreadable_images_are_an_error_that_names_the_first_three(
    allowed: int, named: list[int], damaged: Callable[..., EncodedImages]
) -> None:
    images = damaged(1, 3, 4, 8, 9)
    batches = load(images, evaluation_keys(COUNT, 5), CROP, 0, unreadable_images(allowed / COUNT))
    with pytest.raises(InputError, match=f"^{allowed + 1} of 10 images are unreadable, first ") as error:
        list(batches)
    names = ", ".join(str(images.files[row]) for row in named)
    assert f"first {names}; that is more than data.max_unreadable {allowed / COUNT:g}" in str(error.value)


@pytest.mark.parametrize(("count", "limit"), [(4, 1), (20, 2), (100, 3), (299, 3), (500, 5)])
def test_a_small_set_may_have_a_few_unreadable_images(count: int, limit: int) -> None:
    unreadable = UnreadableImages(count, 0.01)
    for number in range(limit):
        unreadable.add(str(number), "damaged")
    with pytest.raises(InputError, match=rf"{limit + 1} of {count} images .* data.max_unreadable 0.01 allows"):
        unreadable.add("next", "damaged")


@pytest.mark.parametrize("failure", ["full", "SIGBUS"])
def test_full_shared_memory_is_an_input_error(
    failure: str, photos: EncodedImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        if failure == "SIGBUS":
            os.kill(os.getpid(), signal.SIGBUS)
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", fail)
    batches = load(photos, training_keys(COUNT, 2, 9, seed=0), CROP, 2, unreadable_images())
    with pytest.raises(InputError, match=r"--shm-size=1g\), or set data\.workers 0 ") as error:
        list(batches)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_size_of_parts_changes_no_byte(
    workers: int, damaged: Callable[..., EncodedImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = damaged(2, 7)
    whole = training_batches(images)
    monkeypatch.setattr(loader, "_PART_BYTES", 3 * 3 * 8 * 8)
    assert as_bytes(training_batches(images, workers)) == as_bytes(whole)


def test_workers_ignore_interrupts(photos: EncodedImages) -> None:
    batches = load(photos, training_keys(COUNT, 2, 20, seed=0), CROP, 2, unreadable_images())
    first = list(islice(batches, 2))  # one from each worker: both are running
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    assert len(first + list(batches)) == 100


def test_closing_early_leaves_no_worker(photos: EncodedImages) -> None:
    batches = load(photos, training_keys(COUNT, 2, 1000, seed=0), CROP, 2, unreadable_images())
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kdaug-prefetch"]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
@settings(max_examples=25)
def test_prefetch_keeps_items_and_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items


def test_prefetch_raises_an_exception_after_earlier_items() -> None:
    def make() -> Iterator[int]:
        yield from range(5)
        raise InputError("enough")

    items = prefetch(make())
    assert list(islice(items, 5)) == list(range(5))
    with pytest.raises(InputError, match="enough"):
        next(items)
    assert prefetch_threads() == []


def test_prefetch_respects_its_depth_and_stops_when_closed() -> None:
    made = []

    def make() -> Iterator[int]:
        for i in range(1_000_000):
            made.append(i)
            yield i

    items = prefetch(make(), depth=3)
    assert next(items) == 0
    assert len(prefetch_threads()) == 1
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 5, "one taken, three in the queue, one in the thread"
    items.close()
    assert prefetch_threads() == []
    assert len(made) <= 6
