"""Class imbalance: sampling with equal class probability and class weights, compared with NumPy."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from kdaug.data.balance import balanced_order, class_weights, is_imbalanced
from kdaug.data.images import ArrayImages, EncodedImages
from kdaug.data.loader import training_keys

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 3], [60, 25, 4]))  # no image of class 2
COUNT = len(LABELS)


@pytest.mark.parametrize(("counts", "imbalanced"), [([5, 1], False), ([6, 1], True), ([0, 6, 6], False)])
def test_classes_are_imbalanced_from_a_fifth_on(counts: list[int], imbalanced: bool) -> None:
    assert is_imbalanced(np.array(counts)) == imbalanced


def test_class_weights_are_inverse_frequencies_with_mean_1_over_the_images() -> None:
    weights = class_weights(np.array([60, 25, 0, 4]))
    assert_allclose(weights[LABELS].mean(), 1)
    for label in (0, 1, 3):
        frequency = (label == LABELS).mean()
        assert_allclose(weights[label], 1 / frequency / 3)
        assert_allclose(weights[LABELS][label == LABELS].sum(), COUNT / 3)
    assert weights[2] == 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 2**63), st.integers(0, 9))
def test_classes_are_drawn_equally_often_and_their_images_too(labels: list[int], seed: int, epoch: int) -> None:
    array, count = np.array(labels), len(labels)
    order = balanced_order(array, seed, epoch)
    assert len(set(order.tolist())) == count
    assert order.min() >= 0
    drawn = Counter(array[order % count].tolist())
    assert drawn.keys() <= set(labels)
    of_class = [drawn[label] for label in set(labels)]
    assert max(of_class) - min(of_class) <= 1
    uses = np.bincount(order % count, minlength=count)
    for label in set(labels):
        assert np.ptp(uses[array == label]) <= 1
    for index in order[order >= count].tolist():
        assert index - count in order, "the uses of an image are numbered without gaps"


def test_over_many_epochs_all_images_of_a_class_are_drawn_equally_often() -> None:
    """Also the first batch of each epoch has equal shares of the classes."""
    epochs, batch = 2000, 16
    orders = np.stack([balanced_order(LABELS, 7, epoch) for epoch in range(epochs)])
    per_image = np.bincount((orders % COUNT).ravel(), minlength=COUNT) / epochs
    for label, images in ((0, 60), (1, 25), (3, 4)):
        assert_allclose(per_image[label == LABELS].mean(), COUNT / 3 / images, rtol=1e-2)
        assert_allclose(per_image[label == LABELS], COUNT / 3 / images, rtol=0.12)
        share = (LABELS[orders[:, :batch] % COUNT] == label).mean()
        assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / (epochs * batch))


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    orders = {tuple(balanced_order(LABELS, seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert tuple(balanced_order(LABELS, 2, 1)) in orders


@pytest.mark.parametrize("first_step", [0, 1, 4, 5, 9])
def test_batches_from_any_step_on_are_those_of_the_whole_run(first_step: int) -> None:
    def order_of(epoch: int) -> np.ndarray:
        return balanced_order(LABELS, 3, epoch)

    whole = list(training_keys(COUNT, 20, 3, seed=3, order_of=order_of))
    resumed = list(training_keys(COUNT, 20, 3, 3, first_step, order_of=order_of))
    assert len(whole) == 3 * (COUNT // 20)
    for key, expected in zip(resumed, whole[first_step:], strict=True):
        assert (key.step, key.epoch, key.view_epoch) == (expected.step, expected.epoch, expected.view_epoch)
        assert key.indices.tolist() == expected.indices.tolist()


def test_further_uses_of_an_image_have_sample_ids_of_their_own() -> None:
    indices = np.arange(12)
    assert ArrayImages(np.zeros((3, 1, 1, 1), np.uint8), np.zeros(3, np.int64)).sample_ids(indices).tolist() == [
        *range(12)
    ]
    ids = np.array([5, 2**63 - 1, 77])
    images = EncodedImages([None] * 3, np.zeros(3, np.int64), ids)  # type: ignore[arg-type]
    sample_ids = images.sample_ids(indices)
    assert sample_ids[:3].tolist() == ids.tolist()
    assert len(set(sample_ids.tolist())) == 12
    assert sample_ids.min() >= 0
