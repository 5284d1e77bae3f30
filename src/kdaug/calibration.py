"""Calibration: how well the probability of the predicted class matches how often it is right (Guo et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Bins of the reliability curve, as in Guo et al. 2017 (arXiv 1706.04599)."""


@dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence is above `lower` and at most `upper`: their number, mean confidence and accuracy.

    All but `images` are in 0..1; the means of a bin without images are 0.
    """

    lower: float
    upper: float
    images: int
    confidence: float
    accuracy: float


def calibration_bins(confidence: NDArray[np.floating], correct: NDArray[np.bool_]) -> list[CalibrationBin]:
    """The 15 bins of equal width of the reliability curve (Guo et al. 2017, Section 2).

    confidence: the probability of the predicted class, [N] in 0..1. correct: whether it is the label, [N].
    """
    index = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(index, minlength=BINS)
    divisor = np.maximum(images, 1)
    mean_confidence = np.bincount(index, confidence, BINS) / divisor
    accuracy = np.bincount(index, correct, BINS) / divisor
    rows = zip(images.tolist(), mean_confidence.tolist(), accuracy.tolist(), strict=True)
    return [CalibrationBin(number / BINS, (number + 1) / BINS, *row) for number, row in enumerate(rows)]


def calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """The expected calibration error in percent: the mean difference of confidence and accuracy (Guo et al. 2017)."""
    images = sum(each.images for each in bins)
    return 100 * sum(each.images * abs(each.accuracy - each.confidence) for each in bins) / images
