"""How far a student is from its teacher: the paper's divergence over the top K classes, and those it is compared with.

Paper (arXiv 2003.11342) Eq. 3, with the minus sign put back: D = sum over the teacher's top K of p ln(p / q), p the
teacher's and q the student's softmax at temperature T.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.config import Reading
from kdaug.errors import InputError
from kdaug.supervision.adaptive import nucleus_mask
from kdaug.supervision.soft_labels import (
    SoftLabels,
    log_sum_exp,
    logsumexp_others,
    promote_to_float32,
    soft_labels_from_logits,
)


def topk_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    k: int,
    temperature: float,
    reading: Reading = "as-written",
    scale_by_t2: bool = True,
) -> Tensor:
    """Divergence of the student from the teacher over the teacher's `k` top classes: [N], one value per image.

    student_logits, teacher_logits: floating [N,C]; computed in float32 at least, under autocast too. Classes are
    ranked by the teacher. The gradient flows to the student only.

    reading: how Eq. 3's sum over K of C classes is understood.
      "as-written":   softmax over all classes, summed over K of them; may be negative.
      "renormalized": softmax over the K logits alone; a KL divergence, at least 0, free of the other classes.
      "grouped":      the K classes and one more outcome for all others; a KL divergence, at least 0.
    With k >= C all three are the ordinary KL(teacher || student). A logit of -inf rules its class out: a class without
    probability for the teacher adds nothing, whatever the student gives it.
    scale_by_t2: multiply by temperature squared (Hinton et al., arXiv 1503.02531, Section 2.1).

    Raises InputError for k < 1, temperature <= 0, an unknown reading, or logits of different or wrong shape.
    """
    _check(student_logits, teacher_logits, k, temperature, reading)
    settings = config.Supervision(k=int(k), temperature=temperature, reading=reading, scale_by_t2=scale_by_t2)
    with torch.autocast(student_logits.device.type, enabled=False):
        return compute_divergence(student_logits, soft_labels_from_logits(teacher_logits, settings), settings)


def compute_divergence(
    student_logits: Tensor, answer: SoftLabels, settings: config.Supervision, labels: Tensor | None = None
) -> Tensor:
    """The divergence [N] that `settings` name, of student_logits [N,C] from a teacher's `answer` to the same settings.

    labels: int64 [N]; needed by "decoupled".
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        student = promote_to_float32(student_logits)
        if settings.divergence == "hard":
            return functional.cross_entropy(student, answer.first, reduction="none")
        student = student / settings.temperature
        if settings.divergence == "decoupled":
            assert labels is not None
            divergence = decoupled_divergence(student, answer.logits, labels, settings.non_target_weight)
        else:
            divergence = _over_top(student, answer, settings)
        return divergence * settings.temperature**2 if settings.scale_by_t2 else divergence


def _over_top(student: Tensor, answer: SoftLabels, settings: config.Supervision) -> Tensor:
    """The paper's divergence [N]; student: logits [N,C] divided by the temperature."""
    top, teacher = answer.top, answer.logits
    if top is None and settings.mass is None:
        return _kl(student.log_softmax(1), teacher.log_softmax(1))
    if top is None:
        teacher, top = teacher.sort(dim=1, descending=True)
    kept = torch.ones_like(top, dtype=torch.bool)
    if settings.mass is not None:
        kept = nucleus_mask(teacher * settings.temperature, settings.mass)
    of_top, of_teacher = student.gather(1, top).masked_fill(~kept, -math.inf), teacher.masked_fill(~kept, -math.inf)
    if settings.reading == "renormalized":
        return _kl(of_top.log_softmax(1), of_teacher.log_softmax(1))
    if settings.reading == "as-written":
        return _kl(of_top - student.logsumexp(1, keepdim=True), of_teacher - answer.everything[:, None])
    others = logsumexp_others(student, top, kept)
    others_of_teacher = torch.logaddexp(answer.others, log_sum_exp(teacher.masked_fill(kept, -math.inf)))
    student = torch.cat([of_top, others[:, None]], dim=1).log_softmax(1)
    return _kl(student, torch.cat([of_teacher, others_of_teacher[:, None]], dim=1).log_softmax(1))


def decoupled_divergence(student: Tensor, teacher: Tensor, labels: Tensor, non_target_weight: float) -> Tensor:
    """Decoupled knowledge distillation (Zhao et al., arXiv 2203.08679, Eq. 7): [N].

    The divergence over label or not, plus non_target_weight times that among the other classes, each KL(teacher ||
    student). student, teacher: logits [N,C] divided by the temperature; labels int64 [N]. Not multiplied by T squared.
    """
    target = functional.one_hot(labels, student.shape[1]).bool()

    def both(logits: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits.log_softmax(1)
        others = logits.masked_fill(target, -math.inf)
        binary = torch.stack([logits.masked_select(target), others.logsumexp(1)], dim=1)
        return binary, others.log_softmax(1)

    (binary, others), (binary_of_teacher, others_of_teacher) = both(student), both(teacher)
    return _kl(binary, binary_of_teacher) + non_target_weight * _kl(others, others_of_teacher)


def _kl(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over classes of p ln(p / q), of log-probabilities [N,K]; a class that the teacher rules out adds nothing."""
    share = teacher.exp()
    return (share * (teacher - student)).masked_fill(share == 0, 0).sum(1)  # 0 ln(0 / q) is 0, for q = 0 as well


def _check(student: Tensor, teacher: Tensor, k: int, temperature: float, reading: Reading) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        raise InputError(
            f"logits must both be [N,C]; the student's are {list(student.shape)}, the teacher's {list(teacher.shape)}"
        )
    if not (student.is_floating_point() and teacher.is_floating_point()):
        raise InputError(f"logits must be floating point, not {student.dtype} and {teacher.dtype}")
    if not 1 <= k < math.inf or k != int(k):
        raise InputError(f"k is {k}, but must be a whole number of at least 1")
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature is {temperature}, but must be above 0")
    if reading not in ("as-written", "renormalized", "grouped"):
        raise InputError(f"reading is {reading!r}; there are as-written, renormalized, grouped")
