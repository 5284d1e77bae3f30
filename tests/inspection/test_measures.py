"""Estimates and intervals against independent computations, curves and class measures against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from kdaug.inspection.label_errors import class_thresholds, find_label_errors
from kdaug.inspection.measures import Estimate, mean_estimate, share_estimate
from kdaug.intervals import wilson_interval


@pytest.mark.parametrize(("true", "count"), [(0, 5), (3, 10), (10, 10), (499, 1000)])
def test_a_share_of_independent_views_has_wilsons_interval(true: int, count: int) -> None:
    expected = binomtest(true, count).proportion_ci(0.95, "wilson")
    values = np.arange(count) < true
    estimate = share_estimate(values, np.arange(count))
    assert estimate.value == true / count
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_mean_of_independent_views_has_the_usual_standard_error() -> None:
    values = np.random.default_rng(0).random(50)
    estimate = mean_estimate(values, np.arange(50)[::-1])
    half = 1.959964 * values.std(ddof=1) / math.sqrt(50)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-6)


def test_repeated_views_of_an_image_add_no_information() -> None:
    """Four equal views of each image: the intervals are those of one view of each."""
    random = np.random.default_rng(1)
    values, hits, images = random.random(40), random.random(40) < 0.3, np.arange(40)
    repeated = np.repeat(images, 4)
    once, four = mean_estimate(values, images), mean_estimate(np.repeat(values, 4), repeated)
    assert (four.low, four.high) == pytest.approx((once.low, once.high))
    once, four = share_estimate(hits, images), share_estimate(np.repeat(hits, 4), repeated)
    assert (four.low, four.high) == pytest.approx((once.low, once.high))


def test_views_that_are_all_equal_count_as_many_as_there_are_images() -> None:
    estimate = share_estimate(np.zeros(30, bool), np.repeat(np.arange(10), 3))
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(0.0, 10))


def test_the_mean_of_one_image_has_no_interval() -> None:
    estimate = mean_estimate(np.array([0.2, 0.4]), np.array([7, 7]))
    assert estimate.value == pytest.approx(0.3)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def label_errors_by_loops(probs: np.ndarray, labels: np.ndarray) -> dict[int, int]:
    """The confident joint off the diagonal, image by image: position -> class."""
    classes = probs.shape[1]
    thresholds = [probs[labels == c, c].mean() if (labels == c).any() else math.inf for c in range(classes)]
    found = {}
    for position, (row, label) in enumerate(zip(probs, labels, strict=True)):
        above = [c for c in range(classes) if row[c] >= thresholds[c]]
        if above and (best := max(above, key=lambda c: row[c])) != label:
            found[position] = best
    return found


def test_label_errors_are_those_of_confident_learning() -> None:
    random = np.random.default_rng(2)
    true = random.integers(0, 5, 400)
    labels = np.where(random.random(400) < 0.1, random.integers(0, 5, 400), true)
    logits = random.normal(size=(400, 6))  # no image has the label 5
    logits[np.arange(400), true] += 3
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = find_label_errors(probs, labels)
    assert {error.position: error.suggested for error in found} == label_errors_by_loops(probs, labels)
    assert len(found) > 10
    margins = [
        probs[error.position, error.label] - np.delete(probs[error.position], error.label).max() for error in found
    ]
    assert margins == sorted(margins)
    for error in found:
        assert error.label == labels[error.position]
        assert error.label_prob == probs[error.position, error.label]
        assert error.suggested_prob == probs[error.position, error.suggested]
    assert class_thresholds(probs, labels)[5] == math.inf


def test_a_teacher_that_agrees_with_all_labels_finds_no_errors() -> None:
    assert find_label_errors(np.eye(3)[[0, 1, 2, 1]], np.array([0, 1, 2, 1])) == []


def test_intervals_of_probabilities_stay_within_0_and_1() -> None:
    estimate = mean_estimate(np.array([0.0, 1, 1]), np.arange(3))
    assert estimate.low > 0
    assert estimate.high > 1
    assert estimate.within(1) == Estimate(estimate.value, estimate.low, 1)
    one = mean_estimate(np.array([0.5]), np.arange(1)).within(1)
    assert np.isnan([one.low, one.high]).all()
