"""Supervision that adapts to each view: small functions of what the teacher sees in it, or of what was planned for it.

The paper (arXiv 2003.11342) counts the same number of classes and weighs teacher and label alike for all views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdaug import config


def nucleus_mask(log_probability: Tensor, mass: float) -> Tensor:
    """Which classes belong to the fewest that hold at least `mass` of the teacher's probability: bool [N,K].

    log_probability: [N,K], best first, of the probability over all C classes. All K if they do not hold that much.
    The best one always belongs.
    """
    probability = log_probability.exp()
    held_by_better = probability.cumsum(1) - probability
    held_by_better[:, 0] = 0
    return held_by_better < mass


def label_trust(view: Tensor, clean: Tensor) -> Tensor:
    """min(1, p(label | view) / p(label | image as it is)), what the view kept of the label: [N], from 0 to 1.

    view, clean: the teacher's log-probabilities of the label, [N]. A label that it sees in neither is trusted.
    """
    return torch.where(view >= clean, 1.0, (view - clean).exp()).nan_to_num(1.0)


def kept_views_mask(label: Tensor, dropped: float) -> Tensor:
    """1 for the views that are learned, 0 for the share `dropped` in which the label is least probable: [N].

    label: the teacher's log-probabilities of the label, [N]. At least one view is learned.
    """
    count = min(round(dropped * len(label)), len(label) - 1)
    worst = label.argsort(stable=True)[:count]
    return torch.ones_like(label).index_fill(0, worst, 0)


def divergence_weight(settings: config.Supervision, progress: float, magnitude: Tensor) -> Tensor:
    """The weight of the divergence (the paper's lambda) for each view: [N].

    progress: from 0 at the first step of the run to 1 at its end. magnitude: as planned for the views, [N].
    """
    scheduled = {"constant": 1.0, "rising": progress, "falling": 1 - progress}[settings.weight_schedule]
    weight = torch.full_like(magnitude, settings.weight * scheduled)
    return weight * magnitude if settings.weight_by_magnitude else weight
