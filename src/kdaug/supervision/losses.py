"""What the student is told: cross-entropy with the label, plus a divergence from the teacher's top classes.

Paper (arXiv 2003.11342) Eq. 2 and 3, with the minus signs put back: L = CE + weight * D,
D = sum over the teacher's top K of p ln(p / q), p the teacher's and q the student's softmax at temperature T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.config import Reading
from kdaug.errors import InputError


@dataclass(frozen=True)
class Told:
    """The loss and its parts, image by image: [N] each. The loss of a batch is their mean.

    divergence: before weighting. agreement: 1 where student and teacher put the same class first, else 0. Both None
    without a teacher. adversarial: the cross-entropy for the image as an adversary has moved it; None without one.
    """

    loss: Tensor
    cross_entropy: Tensor
    divergence: Tensor | None = None
    agreement: Tensor | None = None
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
        """[N] each, by the name it is logged under and detached from the graph; teacher_agreement in percent."""
        named = {name: value.detach() for name, value in self.values().items()}
        if "agreement" in named:
            named["teacher_agreement"] = 100 * named.pop("agreement")
        return named


def topk_divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    k: int,
    temperature: float,
    reading: Reading = "renormalized",
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
    k = int(k)
    with torch.autocast(student_logits.device.type, enabled=False):
        student, teacher = _at_least_float32(student_logits), _at_least_float32(teacher_logits.detach())
        student, teacher = student / temperature, teacher / temperature
        if k < student.shape[1]:
            student, teacher = _top_outcomes(student, teacher, k, reading)
        else:
            student, teacher = student.log_softmax(1), teacher.log_softmax(1)
        share = teacher.exp()
        terms = (share * (teacher - student)).masked_fill(share == 0, 0)  # 0 ln(0 / q) is 0, for q = 0 as well
        divergence = terms.sum(1)
        return divergence * temperature**2 if scale_by_t2 else divergence


def _top_outcomes(student: Tensor, teacher: Tensor, k: int, reading: Reading) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the outcomes that `reading` compares, student's and teacher's: [N,k] or [N,k+1]."""
    top = teacher.topk(k, dim=1).indices
    if reading == "renormalized":
        return student.gather(1, top).log_softmax(1), teacher.gather(1, top).log_softmax(1)
    if reading == "as-written":
        return student.log_softmax(1).gather(1, top), teacher.log_softmax(1).gather(1, top)
    return _with_rest(student, top), _with_rest(teacher, top)


def _with_rest(logits: Tensor, top: Tensor) -> Tensor:
    """Log-probabilities [N,k+1] of the `top` classes [N,k] and of all others together."""
    others = logits.scatter(1, top, -math.inf)
    none = others.isneginf().all(1, keepdim=True)  # all ruled out: torch's logsumexp would have a slope of nan
    rest = others.masked_fill(none, 0).logsumexp(1, keepdim=True).masked_fill(none, -math.inf)
    return torch.cat([logits.gather(1, top), rest], dim=1).log_softmax(1)


def supervise(
    settings: config.Supervision, student_logits: Tensor, teacher_logits: Tensor | None, labels: Tensor
) -> Told:
    """Cross-entropy at temperature 1 plus settings.weight times the divergence, for every image (paper Eq. 2).

    Logits [N,C] of both networks for the same views, labels int64 [N]. Without a teacher: the cross-entropy alone.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        cross_entropy = functional.cross_entropy(
            _at_least_float32(student_logits), labels, reduction="none", label_smoothing=settings.label_smoothing
        )
    if teacher_logits is None:
        return Told(cross_entropy, cross_entropy)
    divergence = topk_divergence(
        student_logits,
        teacher_logits,
        settings.k,
        settings.temperature,
        settings.reading,
        settings.scale_by_t2,
    )
    agreement = (student_logits.detach().argmax(1) == teacher_logits.argmax(1)).to(cross_entropy.dtype)
    return Told(cross_entropy + settings.weight * divergence, cross_entropy, divergence, agreement)


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


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
