"""What the student is told: cross-entropy with the label, plus its divergence from the teacher.

Paper (arXiv 2003.11342) Eq. 2, with the minus signs put back: L = CE + weight * D.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.supervision.adaptive import kept_views_mask, label_trust
from kdaug.supervision.divergences import compute_divergence
from kdaug.supervision.soft_labels import SoftLabels, promote_to_float32


@dataclass(frozen=True)
class MixedLabels:
    """What views of two images show besides their own: `labels` int64 [N] of the partners, and the own `share` [N]."""

    labels: Tensor
    share: Tensor


@dataclass(frozen=True)
class LossOutput:
    """The loss and its parts, image by image: [N] each. The loss of a batch is their mean.

    divergence: before weighting. agreement: 1 where student and teacher put the same class first, else 0. trust: what
    the view has kept of the label, from 0 to 1; None unless it was asked for. All None without a teacher.
    adversarial: the cross-entropy for the image as an adversary has moved it; None without one.
    """

    loss: Tensor
    cross_entropy: Tensor
    divergence: Tensor | None = None
    agreement: Tensor | None = None
    trust: Tensor | None = None
    adversarial: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """The loss of the batch, a scalar."""
        return self.loss.mean()

    def values(self) -> dict[str, Tensor]:
        """What there is, [N] each, by its field's name."""
        everything = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in everything.items() if value is not None}

    def parts(self) -> dict[str, Tensor]:
        """[N] each, by the name it is logged under and detached from the graph; agreement and trust in percent."""
        named = {name: value.detach() for name, value in self.values().items()}
        for name, logged in (("agreement", "teacher_agreement"), ("trust", "label_trust")):
            if name in named:
                named[logged] = 100 * named.pop(name)
        return named


def distillation_loss(
    settings: config.Supervision,
    student_logits: Tensor,
    answer: SoftLabels | None,
    labels: Tensor,
    weight: Tensor | None = None,
    mixture: MixedLabels | None = None,
) -> LossOutput:
    """label_weight times the cross-entropy at temperature 1 plus `weight` times the divergence, for every image.

    student_logits [N,C], the teacher's answer for the same views to the same settings, labels int64 [N]. weight: [N];
    None: settings.weight for all. mixture: what else the views show. Without a teacher: the cross-entropy alone.
    """
    cross_entropy = _cross_entropy(student_logits, labels, settings.label_smoothing)
    if mixture is not None:
        of_partner = _cross_entropy(student_logits, mixture.labels, settings.label_smoothing)
        cross_entropy = mixture.share * cross_entropy + (1 - mixture.share) * of_partner
    if answer is None:
        return LossOutput(cross_entropy, cross_entropy)
    divergence = compute_divergence(student_logits, answer, settings, labels)
    weight = torch.full_like(divergence, settings.weight) if weight is None else weight
    label_weight, trust = torch.full_like(divergence, settings.label_weight), None
    if settings.label_trust:
        assert answer.label is not None
        assert answer.clean is not None
        trust = label_trust(answer.label, answer.clean)
        weight, label_weight = weight + (1 - trust) * label_weight, trust * label_weight
    loss = label_weight * cross_entropy + weight * divergence
    if settings.drop_worst:
        assert answer.label is not None
        learned = kept_views_mask(answer.label, settings.drop_worst)
        loss = loss * learned / learned.mean()
    agreement = (student_logits.detach().argmax(1) == answer.first).to(cross_entropy.dtype)
    return LossOutput(loss, cross_entropy, divergence, agreement, trust)


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    with torch.autocast(logits.device.type, enabled=False):
        return functional.cross_entropy(promote_to_float32(logits), labels, reduction="none", label_smoothing=smoothing)
