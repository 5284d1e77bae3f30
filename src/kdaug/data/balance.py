"""Class imbalance: when it is large, sampling with equal class probability, and class weights of the loss."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kdaug.rng import Stream, permutation, random_words

Balance = Literal["none", "sample", "loss"]
IMBALANCE = 5
"""Classes are imbalanced if the largest has more than this many times the images of the smallest."""


def class_counts(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """The number of images of each class, int64 [classes]. labels: int64 [N]."""
    return np.bincount(labels, minlength=classes)


def is_imbalanced(counts: NDArray[np.int64]) -> bool:
    """Whether the smallest class that has images has less than a fifth of the images of the largest."""
    return bool(counts[counts > 0].min(initial=counts.max()) * IMBALANCE < counts.max())


def class_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight of each class in the loss, in inverse proportion to its images; float64 [classes].

    The mean over the images is 1: N / (classes with images * images of the class), which scikit-learn calls "balanced"
    (King and Zeng, "Logistic Regression in Rare Events Data", Political Analysis 2001). A class without images has 0.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = counts.sum() / (present.sum() * counts[present])
    return weights


def balanced_order(labels: NDArray[np.int64], seed: int, epoch: int) -> NDArray[np.int64]:
    """The N images of an epoch in which all classes are drawn with equal probability, in random order; int64 [N].

    labels: int64 [N]. A pure function of (labels, seed, epoch). Every class has N / classes uses, and every image of a
    class equally many of them, rounded down or up at random. The further uses of image i are i + N, i + 2 N, ..., so
    all N numbers differ: they stand for the same image, but have views of their own (`Images.sample_ids`).
    """
    count, classes = len(labels), np.unique(labels)
    uses, rest = divmod(count, len(classes))
    left = np.zeros(classes[-1] + 1, np.int64)
    left[classes] = uses
    left[classes[permutation(seed, epoch, len(classes), Stream.SAMPLING)[:rest]]] += 1
    parts = list[NDArray[np.int64]]()
    while left.any():
        parts.append(_draw(labels, left, seed, epoch, len(parts)))
        left -= class_counts(labels[parts[-1] % count], len(left))
    return np.concatenate(parts)[permutation(seed, epoch, count)]


def _draw(labels: NDArray[np.int64], left: NDArray[np.int64], seed: int, epoch: int, number: int) -> NDArray[np.int64]:
    """Use `number` of random images: of each class as many as are `left` [classes], or all."""
    rows = np.flatnonzero(left[labels])
    uses = rows + number * len(labels)
    words = random_words(seed, epoch, uses, Stream.SAMPLING, 2).astype(np.uint64)
    order = np.lexsort(((words[:, 0] << np.uint64(32)) | words[:, 1], labels[rows]))
    sorted_labels = labels[rows[order]]
    rank_in_class = np.arange(len(order)) - np.searchsorted(sorted_labels, sorted_labels)
    return uses[order[rank_in_class < left[sorted_labels]]]
