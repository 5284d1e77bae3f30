"""Statistics of predictions, against definitions written as loops over single images."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdaug import InputError
from kdaug.calibration import calibration_error
from kdaug.data.loader import Batch, BatchKey
from kdaug.inference.predictions import (
    PredictionRecorder,
    Predictions,
    class_errors,
    confident_mistakes,
    confusion_matrix,
    confusions,
    error_interval,
)

NAMES = ("a", "b", "c", "d")


@st.composite
def predictions(draw: st.DrawFn) -> Predictions:
    """Predictions for images of four classes, with confidences at and between the edges of the 15 bins."""
    count = draw(st.integers(1, 40))
    classes = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    confidence = st.one_of(st.integers(1, 15).map(lambda edge: edge / 15), st.floats(0.001, 1))
    return Predictions(
        np.arange(count),
        np.array(draw(classes)),
        np.array(draw(classes)),
        np.array(draw(st.lists(confidence, min_size=count, max_size=count))),
    )


@given(predictions())
def test_confusions_and_errors_are_counts(made: Predictions) -> None:
    pairs = Counter(zip(made.labels.tolist(), made.predicted.tolist(), strict=True))
    assert confusion_matrix(made, 4).tolist() == [[pairs[label, other] for other in range(4)] for label in range(4)]
    wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    found = confusions(made)
    assert {(each.label, each.predicted): each.images for each in found} == wrong
    assert found == sorted(found, key=lambda each: (-each.images, each.label, each.predicted))
    for label, each in enumerate(class_errors(made, NAMES)):
        images = sum(count for pair, count in pairs.items() if pair[0] == label)
        errors = images - pairs[label, label]
        assert (each.name, each.images, each.errors) == (NAMES[label], images, errors)
        assert each.error == (100 * errors / images if images else None)
    assert made.error == pytest.approx(100 * sum(wrong.values()) / len(made))


@given(predictions())
def test_calibration_is_that_of_guo_et_al(made: Predictions) -> None:
    """Section 2: bin m has the samples with confidence in ((m - 1) / M, m / M], M = 15."""
    bins, error = made.calibration, 0.0
    rows = list(zip(made.confidence.tolist(), (~made.wrong).tolist(), strict=True))
    for number in range(1, 16):
        # The edges m / 15 are not exact in binary: a confidence belongs to the bin whose product with 15 says so.
        inside = [(p, right) for p, right in rows if number - 1 < p * 15 <= number]
        found = bins[number - 1]
        assert (found.lower, found.upper) == pytest.approx(((number - 1) / 15, number / 15))
        assert found.images == len(inside)
        if inside:
            confidence, accuracy = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            assert (found.confidence, found.accuracy) == pytest.approx((confidence, accuracy))
            error += len(inside) / len(rows) * abs(accuracy - confidence)
    assert calibration_error(bins) == pytest.approx(100 * error, abs=1e-9)


@given(st.integers(1, 5000), st.data())
def test_the_interval_is_wilsons(images: int, data: st.DataObject) -> None:
    errors, z = data.draw(st.integers(0, images)), 1.959963984540054
    share = errors / images
    center = (share + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(share * (1 - share) / images + z * z / (4 * images**2))
    assert error_interval(errors, images) == pytest.approx((100 * (center - half), 100 * (center + half)), abs=1e-9)


@given(predictions(), st.integers(0, 5))
def test_confident_mistakes_are_wrong_and_sorted(made: Predictions, count: int) -> None:
    found = confident_mistakes(made, count)
    assert len(found) == min(count, int(made.wrong.sum()))
    assert all(made.wrong[found])
    shown = made.confidence[found].tolist()
    assert shown == sorted(made.confidence[made.wrong].tolist(), reverse=True)[:count]


def record(recorder: PredictionRecorder, rows: list[int], labels: list[int], logits: list[list[float]]) -> None:
    table = torch.tensor(logits)
    batch = Batch(np.zeros((len(rows), 1, 1, 3), np.uint8), np.array(labels), BatchKey(0, 0, np.array(rows), 0))
    recorder(batch, table, table.topk(2, dim=1).indices)


def test_a_recorder_keeps_rows_classes_and_probabilities() -> None:
    recorder = PredictionRecorder()
    record(recorder, [0, 2], [1, 1], [[0.0, math.log(3)], [math.log(4), 0.0]])
    record(recorder, [5], [0], [[math.log(9), 0.0]])
    made = recorder.predictions()
    assert made.rows.tolist() == [0, 2, 5]
    assert made.labels.tolist() == [1, 1, 0]
    assert made.predicted.tolist() == [1, 0, 0]
    assert made.confidence == pytest.approx([0.75, 0.8, 0.9])
    assert len(made) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="logits that are not finite"):
        record(PredictionRecorder(), [0], [0], [[bad, 0.0]])
