"""The teacher's log-probability of each label on the unaugmented image, for label trust."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kdaug.device import autocast
from kdaug.supervision import Teacher
from kdaug.training.batches import Indices, unaugmented_batches
from kdaug.training.context import TrainContext
from kdaug.training.progress import progress_bar, track
from kdaug.training.validation import EVALUATION_BATCH


def clean_label_log_probs(context: TrainContext, teacher: Teacher, indices: Indices | None = None) -> Tensor:
    """The teacher's log-probability of the label of training images `indices` (None: all), unaugmented.

    Returns float32 [N] for all N training images, in main memory: NaN for unreadable images and those not in `indices`.
    The ranks share the batches, which do not depend on the number of ranks, and all get the whole result.
    """
    count, dist, results = len(context.dataset.train), context.dist, list[tuple[Tensor, Tensor]]()
    indices = np.arange(count) if indices is None else indices
    batches = np.split(indices, range(EVALUATION_BATCH, len(indices), EVALUATION_BATCH))[dist.rank :: dist.size]
    with progress_bar(context.console) as bar, autocast(context.device, context.precision):
        images = unaugmented_batches(context, batches)
        for batch in track(bar, "teacher, unaugmented", images, sum(map(len, batches))):
            log_probs = teacher(torch.from_numpy(batch.images).to(context.device)).float().log_softmax(1).cpu()
            label = log_probs.gather(1, torch.from_numpy(batch.labels)[:, None])[:, 0]
            results.append((torch.from_numpy(batch.key.indices), label))
    clean = torch.full((count,), torch.nan)
    for of_rank in dist.gather(results):
        for rows, label in of_rank:
            clean[rows] = label
    return clean
