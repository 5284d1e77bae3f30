"""The student's loss: cross-entropy with the label plus the weighted divergence from the teacher.

Paper (arXiv 2003.11342) Eq. 2, with the missing minus signs restored: L = CE + weight * D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.data.unlabelled import NO_LABEL
from kdaug.supervision.adaptive import confident_mask, kept_views_mask, label_trust
from kdaug.supervision.divergences import compute_divergence
from kdaug.supervision.soft_labels import SoftLabels, promote_to_float32


@dataclass(frozen=True)
class MixedLabels:
    """Second label of views mixed from two images (mixup, CutMix).

    partner_labels: labels of the second images, int64 [N]. own_weight: weight of each image's own label, from 0 to 1,
    [N]; the partner's label has the rest.
    """

    partner_labels: Tensor
    own_weight: Tensor


@dataclass(frozen=True)
class LossOutput:
    """Loss and its parts for each image, [N] each. The loss of a batch is the mean.

    cross_entropy, divergence: unweighted. agreement: 1 where student and teacher predict the same class, else 0.
    trust: the label's trust, from 0 to 1 (`kdaug.supervision.adaptive.label_trust`); None unless
    `supervision.label_trust` is set. The last three are None without a teacher. adversarial: cross-entropy on the
    adversarial images; None without an adversary.
    """

    loss: Tensor
    cross_entropy: Tensor
    divergence: Tensor | None = None
    agreement: Tensor | None = None
    trust: Tensor | None = None
    adversarial: Tensor | None = None

    @property
    def mean(self) -> Tensor:
        """Loss of the batch, a scalar."""
        return self.loss.mean()

    def fields_present(self) -> dict[str, Tensor]:
        """The fields that are not None, [N] each, by field name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def log_values(self) -> dict[str, Tensor]:
        """The fields that are not None, by their name in the log, detached; agreement and trust in percent."""
        values = {name: value.detach() for name, value in self.fields_present().items()}
        for name, log_name in (("agreement", "teacher_agreement"), ("trust", "label_trust")):
            if name in values:
                values[log_name] = 100 * values.pop(name)
        return values


def concat_losses(outputs: Sequence[LossOutput]) -> LossOutput:
    """The losses of consecutive parts of a batch as one. All outputs must have the same fields."""
    if len(outputs) == 1:
        return outputs[0]
    parts = [output.fields_present() for output in outputs]
    return LossOutput(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def distillation_loss(
    settings: config.Supervision,
    student_logits: Tensor,
    soft_labels: SoftLabels | None,
    labels: Tensor,
    weight: Tensor | None = None,
    mixed_labels: MixedLabels | None = None,
    class_weight: Tensor | None = None,
    label_prob: Tensor | None = None,
) -> LossOutput:
    """The loss of each view: settings.label_weight x class weight x cross-entropy + `weight` x divergence.

    The cross-entropy is at temperature 1. label_trust, min_confidence and drop_worst change the weights of a view; the
    terms stay.

    student_logits: [N,C]. soft_labels: the teacher's for the same views and settings; None: the cross-entropy alone.
    labels: int64 [N]; an image without one has -1 and a cross-entropy of 0. weight: of the divergence, [N]; None:
    settings.weight for all. mixed_labels: for views of two images. class_weight: of the cross-entropy by the class of
    the label, [C]; None: 1. The divergence has no class weight: its target is the teacher's distribution over all
    classes, not the label, and a teacher that was trained with class weights is balanced itself. label_prob: the
    label's target probability in the cross-entropy, [N]; the rest is spread evenly over the other classes; None: 1.

    Raises ValueError if settings.label_trust is set and soft_labels has no unaugmented_label_log_prob.
    """
    target = (labels, mixed_labels, label_prob, settings.label_smoothing)
    cross_entropy = _cross_entropy(student_logits, *target)
    label_loss = cross_entropy if class_weight is None else _cross_entropy(student_logits, *target, class_weight)
    if soft_labels is None:
        return LossOutput(label_loss, cross_entropy)
    divergence = compute_divergence(student_logits, soft_labels, labels, settings)
    weight = torch.full_like(divergence, settings.weight) if weight is None else weight
    label_weight, trust = torch.full_like(divergence, settings.label_weight), None
    if settings.label_trust:
        if soft_labels.unaugmented_label_log_prob is None:
            raise ValueError("supervision.label_trust is set, but soft_labels.unaugmented_label_log_prob is None")
        trust = label_trust(soft_labels.label_log_prob, soft_labels.unaugmented_label_log_prob)
        weight, label_weight = weight + (1 - trust) * label_weight, trust * label_weight
    if settings.min_confidence:
        confident = confident_mask(soft_labels.top1_log_prob(settings.temperature), settings.min_confidence)
        label_weight = torch.where(confident, label_weight, label_weight + weight)
        weight = torch.where(confident, weight, 0.0)
    loss = label_weight * label_loss + weight * divergence
    if settings.drop_worst:
        kept = kept_views_mask(soft_labels.label_log_prob, settings.drop_worst)
        loss = loss * kept / kept.mean()
    agreement = (student_logits.detach().argmax(1) == soft_labels.top1).to(cross_entropy.dtype)
    return LossOutput(loss, cross_entropy, divergence, agreement, trust)


def _cross_entropy(
    logits: Tensor,
    labels: Tensor,
    mixed_labels: MixedLabels | None,
    label_prob: Tensor | None,
    smoothing: float,
    class_weight: Tensor | None = None,
) -> Tensor:
    """The cross-entropy of each view [N], times the class weight of its label, or of each of its two labels."""

    def with_label(label: Tensor) -> Tensor:
        if label_prob is None:
            # Not the argument `weight` of cross_entropy: with smoothing, it weights each class of the target.
            loss = functional.cross_entropy(
                logits, label, reduction="none", label_smoothing=smoothing, ignore_index=NO_LABEL
            )
        else:
            loss = _softened_cross_entropy(logits, label, label_prob)
        return loss if class_weight is None else class_weight[label] * loss

    with torch.autocast(logits.device.type, enabled=False):
        logits = promote_to_float32(logits)
        own = with_label(labels)
        if mixed_labels is None:
            return own
        own_weight = mixed_labels.own_weight
        return own_weight * own + (1 - own_weight) * with_label(mixed_labels.partner_labels)


def _softened_cross_entropy(logits: Tensor, labels: Tensor, label_prob: Tensor) -> Tensor:
    """The cross-entropy of each view [N] with a target of `label_prob` [N] for the label, the rest spread evenly."""
    log_probs = logits.log_softmax(1)
    own = log_probs.gather(1, labels[:, None].clamp(min=0))[:, 0]
    others = (log_probs.sum(1) - own) / (logits.shape[1] - 1)
    return torch.where(labels == NO_LABEL, 0.0, -label_prob * own - (1 - label_prob) * others)
