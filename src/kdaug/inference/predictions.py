"""What a network predicts for each validation image, and the statistics of it: errors and confusions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kdaug.calibration import CalibrationBin, calibration_bins
from kdaug.data.loader import Batch
from kdaug.errors import InputError
from kdaug.intervals import Interval, wilson_interval


@dataclass(frozen=True)
class Predictions:
    """The most probable class of each of N images.

    rows int64 [N]: which images of the dataset. labels, predicted: classes, int64 [N]. confidence: the probability of
    the predicted class, float64 [N] in 0..1.
    """

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def calibration(self) -> list[CalibrationBin]:
        """The bins of the reliability curve."""
        return calibration_bins(self.confidence, ~self.wrong)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Whether the predicted class is not the label, [N]."""
        return np.not_equal(self.predicted, self.labels)

    @property
    def error(self) -> float:
        """In percent."""
        return 100 * float(self.wrong.mean())


def class_probabilities(logits: Tensor) -> Tensor:
    """The softmax of logits [N,C], float64 [N,C] in main memory. Raises InputError if a logit is not finite."""
    if not bool(logits.isfinite().all()):
        raise InputError("the network computes logits that are not finite", "check its weights")
    return logits.cpu().double().softmax(1)


class PredictionRecorder:
    """Collects the predictions during an evaluation; an `Observer`. It keeps 32 bytes per image, not the logits."""

    def __init__(self) -> None:
        self._parts = list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]()

    def __call__(self, batch: Batch, logits: Tensor, top: Tensor) -> None:
        first = top[:, :1].cpu()
        confidence = class_probabilities(logits).gather(1, first)[:, 0]
        self._parts.append((batch.key.indices, batch.labels, first[:, 0].numpy(), confidence.numpy()))

    def predictions(self) -> Predictions:
        """All predictions so far, in the order of evaluation."""
        rows, labels, predicted, confidence = zip(*self._parts, strict=True)
        return Predictions(
            np.concatenate(rows), np.concatenate(labels), np.concatenate(predicted), np.concatenate(confidence)
        )


def error_interval(errors: int, images: int) -> Interval:
    """The 95 % confidence interval (Wilson's) of an error, in percent."""
    low, high = wilson_interval(errors / images, images)
    return 100 * low, 100 * high


@dataclass(frozen=True)
class ClassError:
    """A class, the number of its images, and how many of them were predicted wrong."""

    name: str
    images: int
    errors: int

    @property
    def error(self) -> float | None:
        """In percent; None if there are no images."""
        return 100 * self.errors / self.images if self.images else None


def class_errors(predictions: Predictions, classes: Sequence[str]) -> list[ClassError]:
    """The errors of each class, in the order of `classes`."""
    images = np.bincount(predictions.labels, minlength=len(classes))
    errors = np.bincount(predictions.labels[predictions.wrong], minlength=len(classes))
    return [ClassError(*values) for values in zip(classes, images.tolist(), errors.tolist(), strict=True)]


@dataclass(frozen=True)
class Confusion:
    """`images` images of class `label` were predicted as class `predicted`. Classes are numbers."""

    label: int
    predicted: int
    images: int


def confusions(predictions: Predictions) -> list[Confusion]:
    """All confusions of two classes, most frequent first; of equally frequent ones, in the order of the classes."""
    pairs = np.stack([predictions.labels, predictions.predicted], axis=1)[predictions.wrong]
    unique, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [Confusion(*values) for values in zip(*unique[order].T.tolist(), counts[order].tolist(), strict=True)]


def confusion_matrix(predictions: Predictions, classes: int) -> NDArray[np.int64]:
    """The number of images by label (row) and predicted class (column), int64 [classes,classes]."""
    cells = predictions.labels * classes + predictions.predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def confident_mistakes(predictions: Predictions, count: int) -> NDArray[np.int64]:
    """The positions in `predictions` of at most `count` wrong ones, most confident first."""
    wrong = np.flatnonzero(predictions.wrong)
    return wrong[np.argsort(-predictions.confidence[wrong], kind="stable")[:count]]
