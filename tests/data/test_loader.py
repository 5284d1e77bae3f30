"""The loader: which images come when is fixed by the seed, whoever decodes them, and a run can go on from any step."""

from __future__ import annotations

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
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from kdaug.data import ArrayImages, EncodedImages
from kdaug.data.crops import RandomResizedCrop
from kdaug.data.loader import Batch, BatchKey, UnreadableImages, evaluation_keys, load, prefetch, training_keys
from kdaug.errors import InputError

COUNT = 10
seeds = st.integers(0, 2**63 - 1)
batches_of_runs = st.integers(1, 60).flatmap(lambda count: st.tuples(st.just(count), st.integers(1, count)))


def flat(keys: list[BatchKey]) -> list[tuple[int, int, list[int]]]:
    return [(key.step, key.epoch, key.indices.tolist()) for key in keys]


def as_bytes(batches: list[Batch]) -> list[tuple[int, int, bytes, bytes, bytes]]:
    return [(b.key.step, b.key.epoch, b.key.indices.tobytes(), b.labels.tobytes(), b.images.tobytes()) for b in batches]


def tolerant(total: int = COUNT, share: float = 1.0) -> tuple[UnreadableImages, list[str]]:
    said: list[str] = []
    return UnreadableImages(total, share, said.append), said


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
    """The photos, of which the given ones cannot be decoded."""

    def make(*rows: int) -> EncodedImages:
        paths = list(photos.files)
        for row in rows:
            paths[row] = tmp_path / f"bad{row}.png"
            paths[row].write_text("no image")
        return EncodedImages(tuple(paths), photos.labels)

    return make


def folder_batches(images: EncodedImages, workers: int = 0, first_step: int = 0) -> list[Batch]:
    keys = training_keys(COUNT, 4, 2, seed=3, first_step=first_step)
    return list(load(images, keys, RandomResizedCrop(8, 3, 0.08), workers, tolerant()[0]))


@given(batches_of_runs, st.integers(1, 4), seeds)
def test_an_epoch_shows_each_image_at_most_once_and_leaves_out_less_than_a_batch(
    sizes: tuple[int, int], epochs: int, seed: int
) -> None:
    count, batch = sizes
    keys = list(training_keys(count, batch, epochs, seed))
    assert [key.step for key in keys] == list(range(count // batch * epochs))
    for epoch in range(epochs):
        shown = [key.indices for key in keys if key.epoch == epoch]
        assert {len(indices) for indices in shown} == {batch}
        assert len(shown) == count // batch
        together = np.concatenate(shown)
        assert len(set(together)) == len(together)
        assert set(together) <= set(range(count))


@given(batches_of_runs, st.integers(1, 4), seeds, st.data())
def test_a_run_continued_at_any_step_is_the_same_run(
    sizes: tuple[int, int], epochs: int, seed: int, data: st.DataObject
) -> None:
    count, batch = sizes
    whole = flat(list(training_keys(count, batch, epochs, seed)))
    step = data.draw(st.integers(0, len(whole)))
    assert flat(list(training_keys(count, batch, epochs, seed, step))) == whole[step:]


def test_every_epoch_and_seed_has_an_order_of_its_own() -> None:
    orders = {tuple(key.indices) for seed in range(5) for key in training_keys(100, 100, epochs=5, seed=seed)}
    assert len(orders) == 25
    assert tuple(range(100)) not in orders


def test_each_image_is_left_out_as_often_as_the_others() -> None:
    seen = np.bincount(np.concatenate([key.indices for key in training_keys(10, 4, epochs=1000, seed=0)]))
    assert np.abs(seen - 800).max() < 5 * np.sqrt(1000 * 0.8 * 0.2)


@given(st.integers(0, 100), st.integers(1, 40))
def test_evaluation_takes_every_image_once_in_order(count: int, batch: int) -> None:
    keys = list(evaluation_keys(count, batch))
    assert [i for key in keys for i in key.indices] == list(range(count))
    assert all(len(key.indices) == batch for key in keys[:-1])
    assert all(0 < len(key.indices) <= batch for key in keys[-1:])


def test_batches_from_memory_are_the_images_of_their_key() -> None:
    images = ArrayImages(np.arange(COUNT, dtype=np.uint8).reshape(COUNT, 1, 1, 1), np.arange(COUNT) * 10)
    for batch in load(images, training_keys(COUNT, 3, 2, seed=0), None, 2, tolerant()[0]):
        assert_array_equal(batch.images.ravel(), batch.key.indices)
        assert_array_equal(batch.labels, batch.key.indices * 10)


def test_batches_from_files_are_the_framed_images_of_their_key(photos: EncodedImages) -> None:
    batches = folder_batches(photos)
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
    assert as_bytes(folder_batches(photos, workers)) == as_bytes(folder_batches(photos, 0))


@pytest.mark.parametrize("step", range(5))
def test_decoding_continued_at_any_step_gives_the_same_bytes(step: int, photos: EncodedImages) -> None:
    assert as_bytes(folder_batches(photos, first_step=step)) == as_bytes(folder_batches(photos))[step:]


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_draws_from_no_global_generator(workers: int, photos: EncodedImages) -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    folder_batches(photos, workers)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert_array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_named_once(workers: int, damaged: Callable[..., EncodedImages]) -> None:
    images, (unreadable, said) = damaged(2, 7), tolerant()
    keys = list(training_keys(COUNT, 5, epochs=3, seed=0))
    batches = list(load(images, keys, RandomResizedCrop(8, 0, 0.5), workers, unreadable))
    for key, batch in zip(keys, batches, strict=True):
        kept = [i for i in key.indices if i not in (2, 7)]
        assert (batch.key.step, batch.key.epoch, batch.key.indices.tolist()) == (key.step, key.epoch, kept)
        assert batch.labels.tolist() == [10 * i for i in kept]
        assert len(batch.images) == len(kept)
    assert len(said) == 2
    for row in (2, 7):
        assert any(str(images.files[row]) in text and "cannot identify" in text for text in said)


@pytest.mark.parametrize("workers", [0, 2])
def test_in_training_the_next_readable_image_takes_the_place_of_an_unreadable_one(
    workers: int, damaged: Callable[..., EncodedImages]
) -> None:
    """In the key too, so that its view is its own; whatever batch it falls to, and round the end of the set."""
    images, (unreadable, said) = damaged(2, 7, 8, 9), tolerant()
    stands_for = {2: 3, 7: 0, 8: 0, 9: 0}
    keys = list(training_keys(COUNT, 5, epochs=2, seed=0))
    batches = list(load(images, keys, RandomResizedCrop(8, 0, 0.5), workers, unreadable, replace_unreadable=True))
    alone = {
        (b.key.epoch, int(b.key.indices[0])): b.images[0]
        for b in load(images, training_keys(COUNT, 1, 2, seed=0), RandomResizedCrop(8, 0, 0.5), 0, tolerant()[0])
        if len(b.labels)
    }
    for key, batch in zip(keys, batches, strict=True):
        assert batch.key.indices.tolist() == [stands_for.get(i, i) for i in key.indices.tolist()]
        assert batch.labels.tolist() == [10 * i for i in batch.key.indices]
        for index, image in zip(batch.key.indices.tolist(), batch.images, strict=True):
            assert_array_equal(image, alone[key.epoch, index])
    assert len(said) == 4


def test_with_no_image_readable_at_all_a_batch_is_empty_though_replacing(damaged: Callable[..., EncodedImages]) -> None:
    keys = evaluation_keys(COUNT, 5)
    (first, second) = load(damaged(*range(COUNT)), keys, RandomResizedCrop(8, 0, 1), 0, tolerant()[0], True)
    assert first.images.shape == second.images.shape == (0, 8, 8, 3)


def test_a_batch_without_a_readable_image_is_empty(damaged: Callable[..., EncodedImages]) -> None:
    batches = list(load(damaged(3, 4, 5), evaluation_keys(COUNT, 3), RandomResizedCrop(8, 0, 1), 0, tolerant()[0]))
    assert [b.key.indices.tolist() for b in batches] == [[0, 1, 2], [], [6, 7, 8], [9]]
    assert [b.images.shape for b in batches] == [(3, 8, 8, 3), (0, 8, 8, 3), (3, 8, 8, 3), (1, 8, 8, 3)]


def test_a_key_without_images_is_a_batch_without_images(photos: EncodedImages) -> None:
    """As a rank gets when fewer images are left than there are ranks."""
    keys = [BatchKey(0, 0, np.array([3]), 0), BatchKey(1, 0, np.array([], np.int64), 0)]
    batches = list(load(photos, keys, RandomResizedCrop(8, 0, 1), 0, tolerant()[0]))
    assert [len(b.labels) for b in batches] == [1, 0]


def test_a_worker_that_is_killed_ends_in_one_sentence(photos: EncodedImages) -> None:
    batches = load(photos, training_keys(COUNT, 2, 1000, seed=0), RandomResizedCrop(8, 0, 1), 2, tolerant()[0])
    next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(InputError, match=r"a process that decodes images was killed .* continue with --run\.resume"):
        list(batches)


def test_up_to_the_allowed_share_may_be_unreadable_and_not_one_more(damaged: Callable[..., EncodedImages]) -> None:
    def run(images: EncodedImages) -> int:
        keys = evaluation_keys(COUNT, 2)
        return sum(len(b.labels) for b in load(images, keys, RandomResizedCrop(8, 0, 1), 0, tolerant(COUNT, 0.2)[0]))

    assert run(damaged(1, 8)) == 8
    third = damaged(1, 8, 9)
    with pytest.raises(InputError, match=r"3 of 10 images are unreadable.*data\.max_unreadable 0\.2") as error:
        run(third)
    assert str(third.files[9]) in str(error.value)


@pytest.mark.parametrize(("allowed", "named"), [(0, [1]), (1, [1, 3]), (3, [1, 3, 4])])
def test_the_first_three_unreadable_images_are_named_at_the_end(
    allowed: int, named: list[int], damaged: Callable[..., EncodedImages]
) -> None:
    images = damaged(1, 3, 4, 8, 9)
    batches = load(
        images, evaluation_keys(COUNT, 5), RandomResizedCrop(8, 0, 1), 0, tolerant(COUNT, allowed / COUNT)[0]
    )
    with pytest.raises(InputError, match=f"^{allowed + 1} of 10 images are unreadable, first ") as error:
        list(batches)
    assert f"first {', '.join(str(images.files[row]) for row in named)}; that is more" in str(error.value)


def test_an_interrupt_is_left_to_the_parent(photos: EncodedImages) -> None:
    keys = training_keys(COUNT, 2, 20, seed=0)
    batches = load(photos, keys, RandomResizedCrop(8, 0, 1), 2, tolerant()[0])
    seen = list(islice(batches, 2))  # one from each worker: both are up
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
    assert len(seen + list(batches)) == 100


def test_loading_closed_early_leaves_no_worker(photos: EncodedImages) -> None:
    batches = load(photos, training_keys(COUNT, 2, 1000, seed=0), RandomResizedCrop(8, 0, 1), 2, tolerant()[0])
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []


def prefetching() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kdaug-prefetch"]


@given(st.lists(st.integers(), max_size=20), st.integers(1, 5))
def test_prefetching_changes_neither_items_nor_order(items: list[int], depth: int) -> None:
    assert list(prefetch(items, depth)) == items


def test_prefetching_raises_what_the_maker_raised_after_the_items_before() -> None:
    def make() -> Iterator[int]:
        yield from range(5)
        raise InputError("enough")

    items = prefetch(make())
    assert list(islice(items, 5)) == list(range(5))
    with pytest.raises(InputError, match="enough"):
        next(items)
    assert prefetching() == []


def test_prefetching_makes_so_many_ahead_and_stops_when_closed() -> None:
    made = []

    def make() -> Iterator[int]:
        for i in range(1_000_000):
            made.append(i)
            yield i

    items = prefetch(make(), depth=3)
    assert next(items) == 0
    assert len(prefetching()) == 1
    deadline = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 5, "one taken, three waiting, one in hand"
    items.close()
    assert prefetching() == []
    assert len(made) <= 6
