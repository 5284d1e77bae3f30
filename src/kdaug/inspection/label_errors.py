"""Likely label errors: unaugmented images that the teacher contradicts with confidence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelError:
    """An image whose label is likely wrong. position: in the arrays. label, suggested: classes, with probabilities."""

    position: int
    label: int
    suggested: int
    label_prob: float
    suggested_prob: float


def find_label_errors(probs: NDArray[np.floating], labels: NDArray[np.integer]) -> list[LabelError]:
    """The images that confident learning counts off the diagonal (Northcutt, Jiang and Chuang, JAIR 2021, Eq. 1).

    probs: [N,C], a network's probabilities for unaugmented images, if possible of a network that was not trained on
    them. labels: [N]. The threshold of a class is the mean probability of the class over the images with that label.
    Among the classes whose probability is at least their threshold, the most probable one is suggested; an image is
    listed if that is not its label. Those with the lowest normalized margin come first: the probability of the label
    minus the largest one of any other class.
    """
    confident = probs >= class_thresholds(probs, labels)
    suggested = np.where(confident, probs, -1).argmax(1)
    found = np.flatnonzero(confident.any(1) & (suggested != labels))
    own = probs[found, labels[found]].astype(np.float64)
    others = probs[found].copy()
    others[np.arange(len(found)), labels[found]] = -1
    order = np.argsort(own - others.max(1, initial=-1), kind="stable")
    return [
        LabelError(
            int(position),
            int(labels[position]),
            int(suggested[position]),
            float(probs[position, labels[position]]),
            float(probs[position, suggested[position]]),
        )
        for position in found[order]
    ]


def class_thresholds(probs: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """The mean probability of each class over the images with that label, [C]; infinity for a class without images."""
    classes = probs.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, probs[np.arange(len(labels)), labels], classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
