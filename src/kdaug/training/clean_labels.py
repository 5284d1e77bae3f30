"""What the teacher sees of each label without augmentation, against which label trust measures a view."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.supervision import LabelStore, Teacher
from kdaug.training.optimization import autocast
from kdaug.training.progress import counted, show_progress
from kdaug.training.setup import EVALUATION_BATCH, Setup
from kdaug.training.viewing import images_as_they_are


def look_at_clean(setup: Setup, teacher: Teacher, rows: NDArray[np.int64] | None = None) -> Tensor:
    """The teacher's log-probability of the label of training images `rows` (None: all) as they are, without views.

    float32 [N] for all N training images: NaN for an unreadable one and one not asked for. The ranks share the batches,
    which are the same however many ranks there are, and all get all answers.
    """
    count, world, found = len(setup.dataset.train), setup.world, list[tuple[Tensor, Tensor]]()
    rows = np.arange(count) if rows is None else rows
    batches = np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))[world.rank :: world.size]
    with show_progress(setup.console) as bar, autocast(setup.device, setup.precision):
        images = images_as_they_are(setup, batches)
        for batch in counted(bar, "teacher, unaugmented", images, sum(map(len, batches))):
            logits = teacher(torch.from_numpy(batch.images).to(setup.device)).float().log_softmax(1).cpu()
            label = logits.gather(1, torch.from_numpy(batch.labels)[:, None])[:, 0]
            found.append((torch.from_numpy(batch.key.indices), label))
    clean = torch.full((count,), torch.nan)
    for part in world.gather(found):
        for places, label in part:
            clean[places] = label
    return clean


def prepare_trust(setup: Setup, teacher: Teacher | LabelStore | None) -> None:
    """Has a teacher look at the images as they are, if the recipe's label trust wants it; a store knows it already."""
    if setup.recipe.supervision.label_trust and isinstance(teacher, Teacher):
        teacher.clean = look_at_clean(setup, teacher)
