"""Divergences of a student from its teacher: top K classes (the paper's), hard, decoupled, and correlations.

Paper (arXiv 2003.11342) Eq. 3, with the missing minus sign restored: D = sum of p ln(p / q) over the teacher's top K
classes, where p and q are the softmax at temperature T of the teacher and of the student.
"""

from __future__ import annotations

import math
from typing import assert_never

import torch
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.config import Reading
from kdaug.errors import InputError
from kdaug.supervision.adaptive import nucleus_mask
from kdaug.supervision.soft_labels import (
    SoftLabels,
    logit_spread,
    logsumexp_outside,
    promote_to_float32,
    safe_logsumexp,
    soft_labels_from_logits,
    view_temperature,
)


def topk_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    k: int,
    temperature: float,
    reading: Reading = "as-written",
    scale_by_t2: bool = True,
    standardize: bool = False,
) -> Tensor:
    """Divergence of the student from the teacher over the teacher's top `k` classes: [N].

    student_logits, teacher_logits: floating point [N,C]. Computed in float32 or float64, also under autocast. The
    gradient flows to the student only.

    reading: how to understand Eq. 3, a sum over K of C classes.
      "as-written":   softmax over all classes, sum over K of them; may be negative.
      "renormalized": softmax over the K logits alone; a KL divergence (>= 0) that ignores the other classes.
      "grouped":      the K classes plus one outcome for all other classes; a KL divergence (>= 0).
    With k >= C all three equal KL(teacher || student). A logit of -inf excludes its class. A class with teacher
    probability 0 adds nothing.
    scale_by_t2: multiply by the temperature squared (Hinton et al., arXiv 1503.02531, Section 2.1).
    standardize: first divide all logits of a row by their standard deviation (Sun et al., arXiv 2403.01427), which must
    be finite.

    Raises InputError for k < 1, temperature <= 0, an unknown reading, or logits of a different or wrong shape or dtype.
    """
    _check(student_logits, teacher_logits, k, temperature, reading)
    settings = config.Supervision(
        k=int(k),
        temperature=temperature,
        reading=reading,
        scale_by_t2=scale_by_t2,
        standardize_logits=standardize,
    )
    unused_labels = torch.zeros(len(teacher_logits), dtype=torch.int64, device=teacher_logits.device)
    with torch.autocast(student_logits.device.type, enabled=False):
        soft_labels = soft_labels_from_logits(teacher_logits, settings, unused_labels)
        return compute_divergence(student_logits, soft_labels, unused_labels, settings)


def compute_divergence(
    student_logits: Tensor, soft_labels: SoftLabels, labels: Tensor, settings: config.Supervision
) -> Tensor:
    """The divergence [N] selected by `settings` of student_logits [N,C] from soft_labels made with the same settings.

    labels: int64 [N], used by "decoupled" only.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        student = promote_to_float32(student_logits)
        spread = logit_spread(student) if settings.standardize_logits else None
        scaled = student / view_temperature(settings.temperature, spread)
        match settings.divergence:
            case "hard":
                return functional.cross_entropy(student, soft_labels.top1, reduction="none")
            case "decoupled":
                teacher, weight = soft_labels.scaled_log_probs, settings.non_target_weight
                divergence = decoupled_divergence(scaled, teacher, labels, weight)
            case "dist":
                divergence = correlation_divergence(scaled, soft_labels.scaled_log_probs)
            case "top-k":
                divergence = _topk_divergence(scaled, soft_labels, settings)
            case _:
                assert_never(settings.divergence)
        return divergence * settings.temperature**2 if settings.scale_by_t2 else divergence


def _topk_divergence(student: Tensor, soft_labels: SoftLabels, settings: config.Supervision) -> Tensor:
    """The paper's divergence [N], not multiplied by T squared. student: logits [N,C] divided by the temperature."""
    classes, teacher = soft_labels.classes, soft_labels.scaled_log_probs
    if classes is None and settings.mass is None:
        return _sum_p_log_ratio(student.log_softmax(1), teacher.log_softmax(1))
    if classes is None:
        teacher, classes = teacher.sort(dim=1, descending=True)
    mask = torch.ones_like(classes, dtype=torch.bool)
    if settings.mass is not None:
        mask = nucleus_mask(teacher * view_temperature(settings.temperature, soft_labels.spread), settings.mass)
    student_top = student.gather(1, classes).masked_fill(~mask, -math.inf)
    teacher_top = teacher.masked_fill(~mask, -math.inf)
    match settings.reading:
        case "renormalized":
            return _sum_p_log_ratio(student_top.log_softmax(1), teacher_top.log_softmax(1))
        case "as-written":
            student_log_probs = student_top - student.logsumexp(1, keepdim=True)
            return _sum_p_log_ratio(student_log_probs, teacher_top - soft_labels.logsumexp_all[:, None])
        case "grouped":
            student_others = logsumexp_outside(student, classes, mask)
            beyond_mass = safe_logsumexp(teacher.masked_fill(mask, -math.inf))
            teacher_others = torch.logaddexp(soft_labels.logsumexp_others, beyond_mass)
            student_grouped = torch.cat([student_top, student_others[:, None]], dim=1)
            teacher_grouped = torch.cat([teacher_top, teacher_others[:, None]], dim=1)
            return _sum_p_log_ratio(student_grouped.log_softmax(1), teacher_grouped.log_softmax(1))
        case _:
            assert_never(settings.reading)


def decoupled_divergence(student: Tensor, teacher: Tensor, labels: Tensor, non_target_weight: float) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al., arXiv 2203.08679, Eq. 7): [N].

    KL(teacher || student) over two outcomes, label or not, plus non_target_weight times KL(teacher || student) over
    the classes other than the label. student, teacher: logits [N,C] divided by the temperature. labels: int64 [N]. Not
    multiplied by T squared.
    """
    is_label = functional.one_hot(labels, student.shape[1]).bool()

    def binary_and_others(logits: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = logits.log_softmax(1)
        others = log_probs.masked_fill(is_label, -math.inf)
        binary = torch.stack([log_probs.masked_select(is_label), others.logsumexp(1)], dim=1)
        return binary, others.log_softmax(1)

    student_binary, student_others = binary_and_others(student)
    teacher_binary, teacher_others = binary_and_others(teacher)
    binary = _sum_p_log_ratio(student_binary, teacher_binary)
    return binary + non_target_weight * _sum_p_log_ratio(student_others, teacher_others)


def correlation_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """DIST (Huang et al., arXiv 2205.10536, Eqs. 9 to 11, both weights 1): [N].

    1 - Pearson's correlation of student and teacher over the classes of each view, plus the mean over the classes of
    1 - their correlation over the N views, which is the same for all views. Both are correlations of probabilities.
    student, teacher: logits [N,C] divided by the temperature. Not multiplied by T squared.
    """
    p, q = teacher.softmax(1), student.softmax(1)
    return (1 - _correlation(p, q, 1)) + (1 - _correlation(p, q, 0)).mean()


def _correlation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along `dim`; 0 where one of the two is constant."""
    return functional.cosine_similarity(a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True), dim)


def _sum_p_log_ratio(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of p ln(p / q) over log-probabilities [N,K], q the student's; classes with p = 0 add 0. Returns [N].

    It is a KL divergence if the probabilities of both sum to 1 over the K classes.
    """
    p = teacher.exp()
    return (p * (teacher - student)).masked_fill(p == 0, 0).sum(1)  # 0 ln(0 / q) is 0, also for q = 0


def _check(student: Tensor, teacher: Tensor, k: int, temperature: float, reading: Reading) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        raise InputError(
            f"logits must both be [N,C]; the student's are {list(student.shape)}, the teacher's {list(teacher.shape)}"
        )
    if not (student.is_floating_point() and teacher.is_floating_point()):
        raise InputError(f"logits must be floating point, not {student.dtype} and {teacher.dtype}")
    if not 1 <= k < math.inf or k != int(k):
        raise InputError(f"k is {k}, but must be an integer of at least 1")
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature is {temperature}, but must be above 0")
    if reading not in ("as-written", "renormalized", "grouped"):
        raise InputError(f"reading is {reading!r}, but must be one of as-written, renormalized, grouped")
