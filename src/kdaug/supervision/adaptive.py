"""Supervision that adapts to each view: classes by mass, label trust, confidence, dropped views, weights, soft labels.

The paper (arXiv 2003.11342) uses the same K and the same weights for all views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kdaug import config


def nucleus_mask(log_probs: Tensor, mass: float) -> Tensor:
    """Mask of the smallest set of top classes whose total probability is at least `mass`: bool [N,K].

    log_probs: of the teacher's top K classes in descending order, normalized over all C classes, [N,K]. All K classes
    are kept if their total is below `mass`. The first class is always kept.
    """
    probs = log_probs.exp()
    return probs.cumsum(1) - probs < mass


def label_trust(view_log_prob: Tensor, unaugmented_log_prob: Tensor) -> Tensor:
    """min(1, p(label | view) / p(label | unaugmented image)), from 0 to 1: [N].

    view_log_prob, unaugmented_log_prob: the teacher's log-probabilities of the label, [N]. The trust is 1 where both
    probabilities are 0 and where one of them is unknown (NaN).
    """
    ratio = (view_log_prob - unaugmented_log_prob).exp()
    return torch.where(view_log_prob >= unaugmented_log_prob, 1.0, ratio).nan_to_num(1.0)


def kept_views_mask(label_log_prob: Tensor, drop_worst: float) -> Tensor:
    """0 for the fraction `drop_worst` of views in which the label is least probable, 1 for the others: [N].

    label_log_prob: the teacher's log-probabilities of the label, [N]. At least one view is kept.
    """
    count = min(round(drop_worst * len(label_log_prob)), len(label_log_prob) - 1)
    worst = label_log_prob.argsort(stable=True)[:count]
    return torch.ones_like(label_log_prob).index_fill(0, worst, 0)


def confident_mask(top1_log_prob: Tensor, min_confidence: float) -> Tensor:
    """Mask of the views whose most probable class has at least the probability `min_confidence`: bool [N].

    top1_log_prob: the teacher's log-probability of that class, [N]. FerKD (Shen, ICCV 2023, arXiv 2312.17473) gives the
    others their softened label. Its text names no threshold that could be the default.
    """
    return top1_log_prob.exp() >= min_confidence


def divergence_weight(settings: config.Supervision, progress: float, magnitude: Tensor) -> Tensor:
    """Weight of the divergence (the paper's lambda) for each view: [N].

    progress: from 0 at the first step of the run to 1 at its end. magnitude: the planned magnitude of each view, [N].
    """
    scheduled = {"constant": 1.0, "rising": progress, "falling": 1 - progress}[settings.weight_schedule]
    weight = torch.full_like(magnitude, settings.weight * scheduled)
    return weight * magnitude if settings.weight_by_magnitude else weight


def visible_label_prob(visible: Tensor, power: float, classes: int) -> Tensor:
    """The label's target probability for views that show a share `visible` [N] of their image, 0..1: [N].

    Soft Augmentation (Liu et al., CVPR 2023, arXiv 2211.04625, Eq. 3): 1 - (1 - chance) (1 - visible)^power, where
    chance is 1 / classes: from 1 for the whole image to chance for nothing of it.
    """
    return 1 - (1 - 1 / classes) * (1 - visible) ** power
