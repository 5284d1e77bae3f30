"""Views as the student gets them, and what the teacher makes of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kdaug.data.images import ArrayImages
from kdaug.supervision import Teacher
from kdaug.training.context import TrainContext
from kdaug.views import apply


@dataclass(frozen=True)
class ViewPrediction:
    """One training image and one of its views, uint8 [H,W,C], the ops between them, and the teacher's judgement.

    top: the teacher's most probable classes for the view, (name, probability), at temperature 1.
    kept, plain: the teacher's probability of the label for the view and for the plain image.
    """

    image: NDArray[np.uint8]
    view: NDArray[np.uint8]
    label: str
    steps: list[tuple[Any, ...]]
    top: list[tuple[str, float]]
    kept: float
    plain: float


def predict_views(
    context: TrainContext, teacher: Teacher, epoch: int, candidates: int, shown: int, classes: int = 3
) -> list[ViewPrediction]:
    """`shown` of the first `candidates` training images as seen in `epoch`, each with its `classes` top classes.

    They stand at even ranks of the teacher's probability of the label, from the most ruined view to the most
    recognisable, so nothing is hand-picked. For sets held in memory.
    """
    assert isinstance(context.dataset.train, ArrayImages)
    assert context.recipe.views.seed is not None
    indices = np.arange(min(candidates, len(context.dataset.train)))
    images, labels = context.dataset.train.images[indices], context.dataset.train.labels[indices]
    plan = context.policy.plan(context.recipe.views.seed, epoch, indices, context.dataset.size)
    views = apply(images, plan)
    on_view, on_plain = _probabilities(context, teacher, views), _probabilities(context, teacher, images)
    kept, plain = on_view[indices, labels], on_plain[indices, labels]
    ranks = np.linspace(0, len(indices) - 1, shown).round().astype(int)
    names = context.dataset.classes
    return [
        ViewPrediction(
            images[row],
            views[row],
            names[labels[row]],
            plan.steps(row),
            [(names[c], float(on_view[row, c])) for c in np.argsort(-on_view[row])[:classes]],
            float(kept[row]),
            float(plain[row]),
        )
        for row in np.argsort(kept, kind="stable")[ranks]
    ]


def _probabilities(context: TrainContext, teacher: Teacher, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    logits = teacher(torch.from_numpy(images).to(context.device))
    probabilities: NDArray[np.float64] = logits.double().softmax(1).cpu().numpy()
    return probabilities
