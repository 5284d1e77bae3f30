"""Views as the student gets them, and what the teacher predicts for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdaug.data.loader import BatchKey
from kdaug.supervision import AnyTeacher
from kdaug.training.batches import make_views, plan_views, unaugmented_batches
from kdaug.training.context import TrainContext


@dataclass(frozen=True)
class ViewPrediction:
    """A training image and one of its views, uint8 [H,W,C], the ops between them, and the teacher's predictions.

    ops: as (name, argument), see `ViewPlan.steps`. mixed_with: label of the partner image and its share of the view
    (mixup, CutMix); None if the view shows one image. top: the view's most probable classes, as (name, probability) at
    temperature 1. label_prob, unaugmented_label_prob: those of the label for the view and for the unaugmented image.
    """

    image: NDArray[np.uint8]
    view: NDArray[np.uint8]
    label: str
    ops: list[tuple[Any, ...]]
    mixed_with: tuple[str, float] | None
    top: list[tuple[str, float]]
    label_prob: float
    unaugmented_label_prob: float


def predict_views(
    context: TrainContext, teacher: AnyTeacher, epoch: int, candidates: int, shown: int, classes: int = 3
) -> list[ViewPrediction]:
    """`shown` of `candidates` training images as augmented in `epoch`, with the teacher's predictions.

    The candidates are evenly spaced among the training images. Those shown are at evenly spaced ranks of the teacher's
    probability of the label for the view, in ascending order, so nothing is hand-picked. classes: the length of
    `ViewPrediction.top`. Unreadable images are left out.
    """
    names, count = context.dataset.classes, len(context.dataset.train)
    indices = np.linspace(0, count - 1, min(candidates, count)).round().astype(np.int64)
    (batch,) = make_views(context, [BatchKey(0, epoch, indices, epoch)], replace_unreadable=False)
    (unaugmented,) = unaugmented_batches(context, [indices])
    plan = plan_views(context, epoch, batch.key.indices)
    views, labels, rows = batch.pixels.numpy(), batch.labels.numpy(), np.arange(len(batch.labels))
    probs, unaugmented_probs = (
        _predict(context, teacher, images, batch.key.indices) for images in (views, unaugmented.images)
    )
    label_probs, unaugmented_label_probs = probs[rows, labels], unaugmented_probs[rows, labels]
    ranks = np.linspace(0, len(rows) - 1, shown).round().astype(int)
    return [
        ViewPrediction(
            image=unaugmented.images[row],
            view=views[row],
            label=names[labels[row]],
            ops=plan.steps(row),
            mixed_with=None
            if batch.mixed_labels is None
            else (names[batch.mixed_labels.partner_labels[row]], 1 - float(batch.mixed_labels.own_weight[row])),
            top=[(names[c], float(probs[row, c])) for c in np.argsort(-probs[row])[:classes]],
            label_prob=float(label_probs[row]),
            unaugmented_label_prob=float(unaugmented_label_probs[row]),
        )
        for row in np.argsort(label_probs, kind="stable")[ranks]
    ]


def _predict(
    context: TrainContext, teacher: AnyTeacher, pixels: NDArray[np.uint8], indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The teacher's probabilities [N,C] for views uint8 [N,H,W,C] of the training images `indices`."""
    logits = teacher(torch.from_numpy(pixels).to(context.device), indices)
    probs: NDArray[np.float64] = logits.double().softmax(1).cpu().numpy()
    return probs
