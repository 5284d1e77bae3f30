"""What the student is told: cross-entropy with the label, plus a divergence from the teacher's top classes.

Paper (arXiv 2003.11342) Eq. 2 and 3, with the minus signs put back: L = CE + weight * D,
D = sum over the teacher's top K of p ln(p / q), p the teacher's and q the student's softmax at temperature T.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

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
    with torch.autocast(student_logits.device.type, enabled=False):
        answer = answer_of(teacher_logits, int(k), temperature)
        return divergence_from(student_logits, answer, temperature, reading, scale_by_t2)


@dataclass(frozen=True)
class Answer:
    """What a teacher says of N views, as far as a divergence over its top K classes at temperature T needs it.

    first: the class it puts first, int64 [N]. top: its K classes, int64 [N,K]; None: all, in their order. logits: of
    these classes, divided by T, [N,K] or [N,C]. others: log-sum-exp of all other classes' logits divided by T, [N].
    All logits of an image are shifted to be log-probabilities at temperature 1, as a label store holds them.
    """

    first: Tensor
    top: Tensor | None
    logits: Tensor
    others: Tensor

    def to(self, device: torch.device) -> Answer:
        """The same on a device."""
        return self._each(lambda column: column.to(device, non_blocking=True))

    def chunk(self, parts: int) -> list[Answer]:
        """The same in so many parts, as Tensor.chunk."""
        rows = torch.arange(len(self.first), device=self.first.device).chunk(parts)
        return [self._each(partial(torch.index_select, dim=0, index=some)) for some in rows]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Answer:
        top = None if self.top is None else change(self.top)
        return Answer(change(self.first), top, change(self.logits), change(self.others))


def answer_of(logits: Tensor, k: int, temperature: float) -> Answer:
    """The answer of a teacher whose `logits` [N,C] are there; in float32 at least, no gradient flows back."""
    scaled = _at_least_float32(logits.detach()).log_softmax(1) / temperature
    first = logits.argmax(1)
    if k >= logits.shape[1]:
        return Answer(first, None, scaled, scaled.new_full((len(scaled),), -math.inf))
    top = scaled.topk(k, dim=1).indices
    return Answer(first, top, scaled.gather(1, top), _log_sum_exp_of_others(scaled, top))


def divergence_from(
    student_logits: Tensor, answer: Answer, temperature: float, reading: Reading, scale_by_t2: bool
) -> Tensor:
    """`topk_divergence` from a teacher's `answer` at the same temperature."""
    with torch.autocast(student_logits.device.type, enabled=False):
        student, top, teacher = _at_least_float32(student_logits) / temperature, answer.top, answer.logits
        if top is None:
            student, teacher = student.log_softmax(1), teacher.log_softmax(1)
        elif reading == "renormalized":
            student, teacher = student.gather(1, top).log_softmax(1), teacher.log_softmax(1)
        elif reading == "as-written":
            everything = torch.logaddexp(teacher.logsumexp(1), answer.others)
            student, teacher = student.log_softmax(1).gather(1, top), teacher - everything[:, None]
        else:
            others = _log_sum_exp_of_others(student, top)
            student = torch.cat([student.gather(1, top), others[:, None]], dim=1).log_softmax(1)
            teacher = torch.cat([teacher, answer.others[:, None]], dim=1).log_softmax(1)
        share = teacher.exp()
        terms = (share * (teacher - student)).masked_fill(share == 0, 0)  # 0 ln(0 / q) is 0, for q = 0 as well
        divergence = terms.sum(1)
        return divergence * temperature**2 if scale_by_t2 else divergence


def _log_sum_exp_of_others(logits: Tensor, top: Tensor) -> Tensor:
    """log-sum-exp [N] over the classes of `logits` [N,C] that are not among `top` [N,K]; -inf if all are ruled out."""
    others = logits.scatter(1, top, -math.inf)
    none = others.isneginf().all(1)  # torch's logsumexp would have a slope of nan
    return others.masked_fill(none[:, None], 0).logsumexp(1).masked_fill(none, -math.inf)


def supervise(settings: config.Supervision, student_logits: Tensor, answer: Answer | None, labels: Tensor) -> Told:
    """Cross-entropy at temperature 1 plus settings.weight times the divergence, for every image (paper Eq. 2).

    student_logits [N,C], the teacher's answer for the same views at settings.temperature, labels int64 [N]. Without a
    teacher: the cross-entropy alone.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        cross_entropy = functional.cross_entropy(
            _at_least_float32(student_logits), labels, reduction="none", label_smoothing=settings.label_smoothing
        )
    if answer is None:
        return Told(cross_entropy, cross_entropy)
    divergence = divergence_from(student_logits, answer, settings.temperature, settings.reading, settings.scale_by_t2)
    agreement = (student_logits.detach().argmax(1) == answer.first).to(cross_entropy.dtype)
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
