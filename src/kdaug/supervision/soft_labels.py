"""What a teacher says of a batch of views, as far as a student is told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from kdaug import config


@dataclass(frozen=True)
class SoftLabels:
    """What a teacher says of N views, as far as a divergence over its top K classes at temperature T needs it.

    first: the class it puts first, int64 [N]. top: its K classes, best first, int64 [N,K]; None: all C, in the data's
    order. logits: of these classes, divided by T, [N,K] or [N,C]. others, everything: log-sum-exp of all other classes'
    logits, and of all, divided by T, [N]. label: logit of each image's label, [N]; None if no labels were given. clean:
    the same for the image as it is, without augmentation; None unless it was looked at.
    All logits of a view are shifted to be log-probabilities at temperature 1, as a label store holds them.
    """

    first: Tensor
    top: Tensor | None
    logits: Tensor
    others: Tensor
    everything: Tensor
    label: Tensor | None = None
    clean: Tensor | None = None

    def to(self, device: torch.device) -> SoftLabels:
        """The same on a device."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        there = {name: column.to(device, non_blocking=True) for name, column in columns.items() if column is not None}
        return replace(self, **there)


def required_classes(settings: config.Supervision, classes: int) -> int:
    """How many of the teacher's classes the divergence needs."""
    return {"top-k": min(settings.k, classes), "hard": 1, "decoupled": classes}[settings.divergence]


def soft_labels_from_logits(logits: Tensor, settings: config.Supervision, labels: Tensor | None = None) -> SoftLabels:
    """The answer of a teacher whose `logits` [N,C] are there; in float32 at least, no gradient flows back.

    labels: int64 [N].
    """
    log_probability = promote_to_float32(logits.detach()).log_softmax(1)
    scaled, k = log_probability / settings.temperature, required_classes(settings, logits.shape[1])
    label = None if labels is None else log_probability.gather(1, labels[:, None])[:, 0]
    everything = logsumexp_all(scaled, settings.temperature)
    if k >= logits.shape[1]:
        none = torch.full_like(everything, -math.inf)
        return SoftLabels(_first(log_probability), None, scaled, none, everything, label)
    top = top_classes(log_probability, k)
    return SoftLabels(top[:, 0], top, scaled.gather(1, top), logsumexp_others(scaled, top), everything, label)


def logsumexp_all(scaled: Tensor, temperature: float) -> Tensor:
    """log-sum-exp [N] of log-probabilities [N,C] divided by `temperature`; at 1 it is 0, not what rounding makes it."""
    return scaled.new_zeros(len(scaled)) if temperature == 1 else scaled.logsumexp(1)


def top_classes(log_probability: Tensor, k: int) -> Tensor:
    """The k most probable classes of [N,C], best first, int64 [N,k]; of equal ones the lower number comes first.

    torch's topk settles ties otherwise for every k, and logits computed in half precision are full of them.
    """
    return log_probability.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _first(log_probability: Tensor) -> Tensor:
    """The first of `top_classes`, int64 [N], without ranking all."""
    best = log_probability == log_probability.amax(1, keepdim=True)
    numbers = torch.arange(best.shape[1], device=best.device)
    return torch.where(best, numbers, best.shape[1]).amin(1).clamp(max=best.shape[1] - 1)


def logsumexp_others(logits: Tensor, top: Tensor, counted: Tensor | None = None) -> Tensor:
    """log-sum-exp [N] over the classes of `logits` [N,C] that are not among `top` [N,K]; -inf if all are ruled out.

    counted: bool [N,K], which of `top` are meant; None: all.
    """
    removed = -math.inf if counted is None else logits.gather(1, top).masked_fill(counted, -math.inf)
    return log_sum_exp(logits.scatter(1, top, removed))


def log_sum_exp(logits: Tensor) -> Tensor:
    """torch.logsumexp over the classes of [N,C], with a slope of 0, not nan, where all are -inf."""
    none = logits.isneginf().all(1)
    return logits.masked_fill(none[:, None], 0).logsumexp(1).masked_fill(none, -math.inf)


def promote_to_float32(logits: Tensor) -> Tensor:
    """The same in float32, unless it is in float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
