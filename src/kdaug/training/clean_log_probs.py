"""What the teacher sees of each label without augmentation, against which label trust measures a view."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.device import autocast
from kdaug.supervision import LabelStore, Teacher
from kdaug.training.batches import unaugmented_batches
from kdaug.training.context import EVALUATION_BATCH, TrainContext
from kdaug.training.progress import progress_bar, track


def clean_label_log_probs(context: TrainContext, teacher: Teacher, rows: NDArray[np.int64] | None = None) -> Tensor:
    """The teacher's log-probability of the label of training images `rows` (None: all) as they are, without views.

    float32 [N] for all N training images: NaN for an unreadable one and one not asked for. The ranks share the batches,
    which are the same however many ranks there are, and all get all answers.
    """
    count, dist, found = len(context.dataset.train), context.dist, list[tuple[Tensor, Tensor]]()
    rows = np.arange(count) if rows is None else rows
    batches = np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))[dist.rank :: dist.size]
    with progress_bar(context.console) as bar, autocast(context.device, context.precision):
        images = unaugmented_batches(context, batches)
        for batch in track(bar, "teacher, unaugmented", images, sum(map(len, batches))):
            logits = teacher(torch.from_numpy(batch.images).to(context.device)).float().log_softmax(1).cpu()
            label = logits.gather(1, torch.from_numpy(batch.labels)[:, None])[:, 0]
            found.append((torch.from_numpy(batch.key.indices), label))
    clean = torch.full((count,), torch.nan)
    for part in dist.gather(found):
        for places, label in part:
            clean[places] = label
    return clean


def prepare_trust(context: TrainContext, teacher: Teacher | LabelStore | None) -> None:
    """Has a teacher look at the images as they are, if the recipe's label trust wants it; a store knows it already."""
    if context.recipe.supervision.label_trust and isinstance(teacher, Teacher):
        teacher.clean = clean_label_log_probs(context, teacher)
