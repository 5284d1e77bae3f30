"""Statistics and subsets of images in memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from kdaug import InputError, config
from kdaug.data import load_dataset
from kdaug.data.images import ArrayImages, Dataset, array_dataset, balanced_subset, channel_mean_std, stratified_rows

label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))))
def test_statistics_equal_numpy_in_float64(images: NDArray[np.uint8]) -> None:
    mean, std = channel_mean_std(images)
    values = images.astype(np.float64) / 255
    assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-12, atol=1e-15)
    assert_allclose(std, np.maximum(values.std((0, 1, 2)), 1e-3), rtol=1e-9)


def test_statistics_of_many_pixels_are_exact() -> None:
    images = np.full((100, 64, 64, 1), 77, np.uint8)
    images[0, 0, 0] = 78
    mean, _ = channel_mean_std(images)
    assert mean[0] * 255 == pytest.approx(77 + 1 / images.size, rel=1e-13)


def test_statistics_count_every_image() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2_345, 2, 2, 3), np.uint8)
    assert_allclose(channel_mean_std(images)[0], (images / 255).mean((0, 1, 2)), rtol=1e-12)


@given(label_lists, st.data())
@settings(max_examples=50)
def test_a_subset_is_balanced_over_the_classes(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels)))
    rows = balanced_subset(np.array(labels), count)
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(range(len(labels)))
    available = np.bincount(labels, minlength=5)
    selected = np.bincount(np.array(labels)[rows], minlength=5)
    with_more = selected[selected < available]
    assert with_more.size == 0 or selected.max() <= with_more.min() + 1


@given(label_lists)
@settings(max_examples=20)
def test_a_larger_subset_contains_every_smaller_one(labels: list[int]) -> None:
    array = np.array(labels)
    subsets = [set(balanced_subset(array, count)) for count in range(len(labels) + 1)]
    assert all(small < large for small, large in pairwise(subsets))


def test_a_subset_is_reproducible_and_spread_over_the_images() -> None:
    labels = np.arange(1000) % 10
    rows = balanced_subset(labels, 100)
    assert_array_equal(rows, balanced_subset(labels, 100))
    assert 300 < rows.mean() < 700


def test_a_subset_of_images_keeps_their_labels() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    part = ArrayImages(images, np.arange(6) * 10).subset(np.array([4, 1]))
    assert (part.images.ravel().tolist(), part.labels.tolist(), len(part)) == ([4, 1], [40, 10], 2)


def test_content_depends_on_every_pixel_and_label() -> None:
    def content(change: str = "") -> str:
        parts = []
        for name in ("train", "val"):
            images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
            labels = np.array([0, 1])
            images[-1, -1, -1, 0] += change == f"{name} pixel"
            labels[-1] += change == f"{name} label"
            parts.append(ArrayImages(images, labels).subset(np.arange(1 + (change != f"{name} fewer"))))
        return array_dataset("", (), *parts).content

    changes = [f"{name} {part}" for name in ("train", "val") for part in ("pixel", "label", "fewer")]
    assert content() == content()
    assert len({content(), *map(content, changes)}) == 7
    wide, strided = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1), np.zeros((2, 3, 8, 1), np.uint8)
    strided[:, :, ::2] = wide
    one, other = (ArrayImages(images, np.array([0, 1])) for images in (wide, strided[:, :, ::2]))
    assert array_dataset("", (), one, one).content == array_dataset("", (), other, other).content


@pytest.mark.parametrize(("mean", "fill"), [((0.5,), (128, 128, 128)), ((0.0, 0.4914, 1.0), (0, 125, 255))])
def test_the_fill_color_is_the_mean(mean: tuple[float, ...], fill: tuple[int, int, int]) -> None:
    empty = ArrayImages(np.empty((0, 1, 1, len(mean)), np.uint8), np.empty(0, np.int64))
    dataset = Dataset("none", (), empty, empty, (1, 1), mean, mean, "")
    assert dataset.fill == fill
    assert dataset.channels == len(mean)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_holdout_is_a_share_of_each_training_class(share: float) -> None:
    whole, split = (load_dataset(config.Data(holdout=holdout)) for holdout in (0.0, share))
    assert len(split.val) == share * len(whole.train)
    assert len(split.train) + len(split.val) == len(whole.train)
    assert set(np.bincount(split.val.labels)) == {share * len(whole.train) / 10}
    both = np.concatenate([split.train.images, split.val.images])
    rows = [np.sort(images.reshape(len(images), -1).view("S784").ravel()) for images in (both, whole.train.images)]
    assert (rows[0] == rows[1]).all(), "each training image is in one of the splits, and no test image"
    assert (split.mean, split.content) == (whole.mean, whole.content)


def _sorted_images(*splits: ArrayImages) -> np.ndarray:
    images = np.concatenate([split.images for split in splits])
    return np.sort(images.reshape(len(images), -1).view("S784").ravel())


@pytest.mark.parametrize("holdout", [0.0, 0.3])
def test_unused_training_images_are_measured_in_addition(holdout: float) -> None:
    whole = load_dataset(config.Data())
    held_out = load_dataset(config.Data(holdout=holdout, train_images=2000))
    measured = load_dataset(config.Data(holdout=holdout, train_images=2000, measure_unused=True))
    assert (measured.train.images == held_out.train.images).all(), "the training images are the same"
    assert len(measured.val) == 2000 + (1 - holdout) * 10_000 - 2000
    assert (measured.val.images[:2000] == whole.val.images).all()
    neither = [held_out.val] if holdout else []
    all_images = _sorted_images(measured.train, measured.val, *neither)
    assert (all_images == _sorted_images(whole.train, whole.val)).all(), "no image is in two of them"
    labels = np.concatenate([split.labels for split in (measured.train, measured.val, *neither)])
    assert (np.bincount(labels) == 1200).all()


@pytest.mark.parametrize("share", [1e-4, 0.9999])
def test_a_holdout_leaves_each_class_an_image_in_both_splits(share: float) -> None:
    split = load_dataset(config.Data(holdout=share))
    smaller = min((split.train, split.val), key=len)
    assert np.bincount(smaller.labels).tolist() == [1] * 10


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.floats(0.01, 0.99), st.randoms())
@settings(max_examples=50)
def test_stratified_rows_have_the_lowest_order_of_each_class(counts: list[int], share: float, random: Any) -> None:
    assume(max(counts) > 1)
    labels = np.repeat(np.arange(len(counts)), counts)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    names = [f"class {number}" for number in range(len(counts))]
    rows = stratified_rows(labels, order, share, names, "here")
    for label, count in enumerate(counts):
        of_class = sorted((order[row], row) for row in np.flatnonzero(labels == label))
        expected_count = min(max(round(share * count), 1), count - 1)
        assert set(rows[labels[rows] == label]) == {row for _, row in of_class[:expected_count]}


def test_classes_that_cannot_be_split() -> None:
    with pytest.raises(InputError, match=r"^here: every class has only one image"):
        stratified_rows(np.array([0, 1]), np.arange(2), 0.5, ["a", "b"], "here")
    with pytest.raises(InputError, match=r"^here: class b has no images"):
        stratified_rows(np.array([0, 0, 2]), np.arange(3), 0.5, ["a", "b", "c"], "here")
