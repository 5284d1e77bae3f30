"""The soft labels of a recipe as probabilities, to show them."""

from __future__ import annotations

import torch
from torch import Tensor

from kdaug import config
from kdaug.supervision import soft_labels_from_logits
from kdaug.supervision.adaptive import nucleus_mask


def soft_label_probs(logits: Tensor, settings: config.Supervision, labels: Tensor) -> Tensor:
    """The probabilities that the divergence of `settings` compares the student with: [N,C], 0 for unused classes.

    logits: the teacher's, [N,C]. labels: int64 [N]. With the divergence top-k and readings as-written and grouped, the
    classes that are used sum to less than 1: to their probability among all classes, at the temperature.
    """
    soft = soft_labels_from_logits(logits, settings, labels)
    empty = torch.zeros_like(logits, dtype=soft.scaled_log_probs.dtype)
    if settings.divergence == "hard":
        return empty.scatter(1, soft.top1[:, None], 1)
    scaled, classes = soft.scaled_log_probs, soft.classes
    if classes is None:
        scaled, classes = scaled.sort(dim=1, descending=True, stable=True)
    if settings.divergence == "top-k" and settings.mass is not None:
        scaled = scaled.masked_fill(~nucleus_mask(scaled * settings.temperature, settings.mass), -torch.inf)
    renormalized = settings.divergence == "top-k" and settings.reading == "renormalized"
    total = scaled.logsumexp(1) if renormalized else soft.logsumexp_all
    return empty.scatter(1, classes, (scaled - total[:, None]).exp())
