"""Soft labels: a teacher's probabilities of its K most probable classes for each view, at temperature T."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import assert_never

import torch
from torch import Tensor

from kdaug import config


@dataclass(frozen=True)
class SoftLabels:
    """The soft labels of N views, with what the losses need besides them. With `classes` None they have all C classes.

    Log-probabilities are at temperature 1, as in a label store. Divided by T they are logits: their softmax is the
    teacher's at temperature T. With supervision.standardize_logits, T is the temperature times `spread`.

    top1: the most probable class, int64 [N].
    classes: the K most probable classes in descending order, int64 [N,K]; None: all C classes in the dataset's order.
    scaled_log_probs: log-probabilities of `classes` divided by T, [N,K] or [N,C].
    logsumexp_others: log-sum-exp of the log-probabilities of all other classes divided by T, [N].
    logsumexp_all: log-sum-exp of the log-probabilities of all C classes divided by T, [N].
    label_log_prob: log-probability of each image's label, [N]; of class 0 for an image without one.
    spread: standard deviation of the teacher's logits, [N]; None unless supervision.standardize_logits is set.
    unaugmented_label_log_prob: of the label on the unaugmented image, [N]; None unless supervision.label_trust is set.
    """

    top1: Tensor
    classes: Tensor | None
    scaled_log_probs: Tensor
    logsumexp_others: Tensor
    logsumexp_all: Tensor
    label_log_prob: Tensor
    spread: Tensor | None = None
    unaugmented_label_log_prob: Tensor | None = None

    def top1_log_prob(self, temperature: float) -> Tensor:
        """Log-probability of `top1` at temperature 1, [N]. temperature: the one of `scaled_log_probs`."""
        return (self.scaled_log_probs * view_temperature(temperature, self.spread)).amax(1)

    def to(self, device: torch.device) -> SoftLabels:
        """A copy on `device`; the transfer is asynchronous where possible."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items() if tensor is not None}
        return replace(self, **moved)


def required_classes(settings: config.Supervision, classes: int) -> int:
    """Number of the teacher's top classes that the divergence uses, of `classes` in the dataset."""
    match settings.divergence:
        case "top-k":
            return min(settings.k or classes, classes)
        case "hard":
            return 1
        case "decoupled" | "dist":
            return classes
        case _:
            assert_never(settings.divergence)


def requires_logsumexp(settings: config.Supervision) -> bool:
    """Whether the divergence uses logsumexp_others or logsumexp_all when it has only some of the classes."""
    match settings.divergence:
        case "top-k":
            return settings.reading != "renormalized"
        case "hard" | "decoupled" | "dist":
            return False
        case _:
            assert_never(settings.divergence)


def soft_labels_from_logits(logits: Tensor, settings: config.Supervision, labels: Tensor) -> SoftLabels:
    """Soft labels from a teacher's `logits` [N,C] and the labels int64 [N], -1 for images without one.

    Computed in float32 or float64. No gradient flows back to `logits`.
    """
    log_probs = promote_to_float32(logits.detach()).log_softmax(1)
    spread = logit_spread(log_probs) if settings.standardize_logits else None
    k = required_classes(settings, logits.shape[1])
    temperature = view_temperature(settings.temperature, spread)
    scaled = log_probs / temperature
    label_log_prob = log_probs.gather(1, labels[:, None].clamp(min=0))[:, 0]
    total = logsumexp_scaled(scaled, temperature)
    if k >= logits.shape[1]:
        none = torch.full_like(total, -math.inf)
        return SoftLabels(_top1(log_probs), None, scaled, none, total, label_log_prob, spread)
    top = top_classes(log_probs, k)
    others = logsumexp_outside(scaled, top)
    return SoftLabels(top[:, 0], top, scaled.gather(1, top), others, total, label_log_prob, spread)


def top_classes(log_probs: Tensor, k: int) -> Tensor:
    """The k most probable classes of [N,C] in descending order, int64 [N,k]. Ties: the lower class index first.

    torch.topk orders ties differently for different k, and logits computed in half precision have many ties.
    """
    return log_probs.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _top1(log_probs: Tensor) -> Tensor:
    """`top_classes(log_probs, 1)[:, 0]` without sorting, int64 [N]."""
    is_best = log_probs == log_probs.amax(1, keepdim=True)
    classes = torch.arange(is_best.shape[1], device=is_best.device)
    return torch.where(is_best, classes, is_best.shape[1]).amin(1).clamp(max=is_best.shape[1] - 1)


def logit_spread(logits: Tensor) -> Tensor:
    """What supervision.standardize_logits divides the logits [N,C] of each view by, [N].

    It is their standard deviation over the classes with C - 1, as in the code of Sun et al. (arXiv 2403.01427), but at
    least 1e-3 (there 1e-7 is added). They also subtract the mean, which does not change the softmax.
    """
    return logits.var(1).clamp(min=1e-6).sqrt()  # the gradient of std(1) would be nan for equal logits


def view_temperature(temperature: float, spread: Tensor | None) -> Tensor | float:
    """What the logits of each view are divided by: `temperature`, times their `spread` [N] if it is given, [N,1]."""
    return temperature if spread is None else temperature * spread[:, None]


def logsumexp_scaled(scaled: Tensor, temperature: Tensor | float) -> Tensor:
    """log-sum-exp [N] of log-probabilities [N,C] divided by `temperature`; exactly 0 at temperature 1."""
    is_one = not isinstance(temperature, Tensor) and temperature == 1
    return scaled.new_zeros(len(scaled)) if is_one else scaled.logsumexp(1)


def logsumexp_outside(logits: Tensor, classes: Tensor, mask: Tensor | None = None) -> Tensor:
    """log-sum-exp [N] of `logits` [N,C] over the classes that are not in `classes` [N,K]; -inf if all of them are -inf.

    mask: bool [N,K], which of `classes` to exclude from the sum; None: all.
    """
    excluded = -math.inf if mask is None else logits.gather(1, classes).masked_fill(mask, -math.inf)
    return safe_logsumexp(logits.scatter(1, classes, excluded))


def safe_logsumexp(logits: Tensor) -> Tensor:
    """torch.logsumexp over dimension 1 of [N,C], with gradient 0 instead of nan in rows that are all -inf."""
    is_empty = logits.isneginf().all(1)
    return logits.masked_fill(is_empty[:, None], 0).logsumexp(1).masked_fill(is_empty, -math.inf)


def promote_to_float32(logits: Tensor) -> Tensor:
    """`logits` in float32; float64 stays float64."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
