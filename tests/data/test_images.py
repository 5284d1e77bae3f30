"""Statistics and subsets of images in memory."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from kdaug import InputError, config
from kdaug.data import load_dataset
from kdaug.data.images import (
    ArrayImages,
    Dataset,
    balanced_subset,
    channel_mean_std,
    content_digest,
    stratified_rows,
)

label_lists = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))))
def test_statistics_are_those_of_numpy_in_float64(images: NDArray[np.uint8]) -> None:
    mean, std = channel_mean_std(images)
    values = images.astype(np.float64) / 255
    assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-12, atol=1e-15)
    assert_allclose(std, np.maximum(values.std((0, 1, 2)), 1e-3), rtol=1e-9)


def test_statistics_of_many_equal_pixels_lose_nothing() -> None:
    images = np.full((100, 64, 64, 1), 77, np.uint8)
    images[0, 0, 0] = 78
    mean, _ = channel_mean_std(images)
    assert mean[0] * 255 == pytest.approx(77 + 1 / images.size, rel=1e-13)


@given(label_lists, st.data())
def test_a_subset_takes_turns_over_the_classes(labels: list[int], data: st.DataObject) -> None:
    count = data.draw(st.integers(0, len(labels)))
    rows = balanced_subset(np.array(labels), count)
    assert len(rows) == count
    assert (np.diff(rows) > 0).all()
    assert set(rows) <= set(range(len(labels)))
    there = np.bincount(labels, minlength=5)
    taken = np.bincount(np.array(labels)[rows], minlength=5)
    not_used_up = taken[taken < there]
    assert not_used_up.size == 0 or taken.max() <= not_used_up.min() + 1


@given(label_lists)
def test_a_larger_subset_holds_every_smaller_one(labels: list[int]) -> None:
    array = np.array(labels)
    subsets = [set(balanced_subset(array, count)) for count in range(len(labels) + 1)]
    assert all(small < large for small, large in pairwise(subsets))


def test_a_subset_is_the_same_every_time_but_not_just_the_first_images() -> None:
    labels = np.arange(1000) % 10
    rows = balanced_subset(labels, 100)
    assert_array_equal(rows, balanced_subset(labels, 100))
    assert 300 < rows.mean() < 700


def test_a_subset_of_images_keeps_their_labels() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1)
    part = ArrayImages(images, np.arange(6) * 10).subset(np.array([4, 1]))
    assert (part.images.ravel().tolist(), part.labels.tolist(), len(part)) == ([4, 1], [40, 10], 2)


def test_content_is_every_pixel_and_label_of_both_parts() -> None:
    def content(change: str = "") -> str:
        parts = []
        for name in ("train", "val"):
            images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
            labels = np.array([0, 1])
            images[-1, -1, -1, 0] += change == f"{name} pixel"
            labels[-1] += change == f"{name} label"
            parts.append(ArrayImages(images, labels).subset(np.arange(1 + (change != f"{name} fewer"))))
        return content_digest(*parts)

    changes = [f"{name} {what}" for name in ("train", "val") for what in ("pixel", "label", "fewer")]
    assert content() == content()
    assert len({content(), *map(content, changes)}) == 7
    wide, strided = np.arange(24, dtype=np.uint8).reshape(2, 3, 4, 1), np.zeros((2, 3, 8, 1), np.uint8)
    strided[:, :, ::2] = wide
    one, other = (ArrayImages(images, np.array([0, 1])) for images in (wide, strided[:, :, ::2]))
    assert content_digest(one, one) == content_digest(other, other)


@pytest.mark.parametrize(("mean", "fill"), [((0.5,), (128, 128, 128)), ((0.0, 0.4914, 1.0), (0, 125, 255))])
def test_the_fill_colour_is_the_mean(mean: tuple[float, ...], fill: tuple[int, int, int]) -> None:
    nothing = ArrayImages(np.empty((0, 1, 1, len(mean)), np.uint8), np.empty(0, np.int64))
    dataset = Dataset("none", (), nothing, nothing, (1, 1), mean, mean, "")
    assert dataset.fill == fill
    assert dataset.channels == len(mean)


@pytest.mark.parametrize("share", [0.1, 0.25])
def test_a_holdout_takes_a_share_of_every_class_from_the_training_images(share: float) -> None:
    whole, split = (load_dataset(config.Data(holdout=held)) for held in (0.0, share))
    assert len(split.val) == share * len(whole.train)
    assert len(split.train) + len(split.val) == len(whole.train)
    assert set(np.bincount(split.val.labels)) == {share * len(whole.train) / 10}
    together = np.concatenate([split.train.images, split.val.images])
    rows = [np.sort(images.reshape(len(images), -1).view("S784").ravel()) for images in (together, whole.train.images)]
    assert (rows[0] == rows[1]).all(), "every training image on one side or the other, none from the test images"
    assert (split.mean, split.content) == (whole.mean, whole.content)


@pytest.mark.parametrize("share", [1e-4, 0.9999])
def test_a_holdout_leaves_every_class_an_image_on_either_side(share: float) -> None:
    split = load_dataset(config.Data(holdout=share))
    smaller = min((split.train, split.val), key=len)
    assert np.bincount(smaller.labels).tolist() == [1] * 10


@given(st.lists(st.integers(2, 60), min_size=1, max_size=6), st.floats(0.01, 0.99), st.randoms())
def test_a_share_of_each_class_is_that_of_small_and_of_large_ones(counts: list[int], share: float, dice: Any) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    drawn = np.array(dice.sample(range(len(labels)), len(labels)))
    names = [f"class {number}" for number in range(len(counts))]
    taken = stratified_rows(labels, drawn, share, names, "here")
    for label, count in enumerate(counts):
        of_class = sorted((drawn[row], row) for row in np.flatnonzero(labels == label))
        wanted = min(max(round(share * count), 1), count - 1)
        assert set(taken[labels[taken] == label]) == {row for _, row in of_class[:wanted]}


def test_a_share_of_a_class_of_one_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"here: class b has 1 image\(s\)"):
        stratified_rows(np.array([0, 0, 1]), np.arange(3), 0.5, ["a", "b"], "here")
