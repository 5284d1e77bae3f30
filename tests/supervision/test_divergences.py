"""Divergences and their gradients, compared with explicit sums over classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.config import Divergence, Reading
from kdaug.errors import InputError
from kdaug.supervision import distillation_loss, soft_labels_from_logits, topk_divergence
from kdaug.supervision.divergences import compute_divergence, decoupled_divergence

READINGS: list[Reading] = ["as-written", "renormalized", "grouped"]
KL_READINGS: list[Reading] = ["renormalized", "grouped"]

seeds = st.integers(0, 2**32 - 1)
class_counts = st.integers(2, 12)
temperatures = st.sampled_from([0.5, 1.0, 2.0, 10.0])
every_reading = pytest.mark.parametrize("reading", READINGS)


def random_logits(seed: int, classes: int, images: int = 4, std: float = 3.0) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits, float64 [images,classes]."""
    student, teacher = np.random.default_rng(seed).normal(0, std, (2, images, classes))
    return torch.tensor(student), torch.tensor(teacher)


def softmax(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp((value - max(logits)) / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def explicit_sum(student: list[float], teacher: list[float], k: int, temperature: float, reading: Reading) -> float:
    """Eq. 3 for one image as a loop over outcomes; p is the teacher's, q the student's."""
    ranked = sorted(range(len(teacher)), key=lambda c: teacher[c], reverse=True)
    top, others = ranked[:k], ranked[k:]
    if reading == "renormalized":
        p = softmax([teacher[c] for c in top], temperature)
        q = softmax([student[c] for c in top], temperature)
    else:
        all_p, all_q = softmax(teacher, temperature), softmax(student, temperature)
        p, q = [all_p[c] for c in top], [all_q[c] for c in top]
        if reading == "grouped" and others:
            p.append(sum(all_p[c] for c in others))
            q.append(sum(all_q[c] for c in others))
    total = 0.0
    for p_c, q_c in zip(p, q, strict=True):
        total += p_c * math.log(p_c / q_c) if p_c > 0 else 0
    return total


@every_reading
@given(seeds, class_counts, st.integers(1, 14), temperatures)
def test_topk_equals_explicit_sum(reading: Reading, seed: int, classes: int, k: int, temperature: float) -> None:
    student, teacher = random_logits(seed, classes)
    expected = [
        explicit_sum(s, t, k, temperature, reading) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    plain = topk_divergence(student, teacher, k, temperature, reading, scale_by_t2=False)
    assert plain.shape == (4,)
    assert_allclose(plain, expected, rtol=1e-9, atol=1e-12)
    scaled = topk_divergence(student, teacher, k, temperature, reading, scale_by_t2=True)
    assert_allclose(scaled, np.array(expected) * temperature**2, rtol=1e-9, atol=1e-12)


def test_default_is_as_written_and_scaled_by_t2() -> None:
    student, teacher = random_logits(0, 6)
    expected = topk_divergence(student, teacher, 2, 3.0, "as-written", scale_by_t2=True)
    assert torch.equal(topk_divergence(student, teacher, 2, 3.0), expected)


@every_reading
@pytest.mark.parametrize("k", [7, 8, 1000])
def test_topk_over_all_classes_is_kl(reading: Reading, k: int) -> None:
    student, teacher = random_logits(0, 7)
    ordinary = functional.kl_div(
        (student / 2).log_softmax(1), (teacher / 2).log_softmax(1), reduction="none", log_target=True
    ).sum(1)
    assert_allclose(topk_divergence(student, teacher, k, 2.0, reading, scale_by_t2=False), ordinary, rtol=1e-12)


@pytest.mark.parametrize("reading", KL_READINGS)
@given(arrays(np.float32, (2, 3, 6), elements=st.floats(-1e4, 1e4, width=32)), st.integers(1, 7), st.floats(0.1, 20))
def test_kl_readings_are_not_negative(
    reading: Reading, logits: NDArray[np.float32], k: int, temperature: float
) -> None:
    student, teacher = torch.tensor(logits).double()
    assert (topk_divergence(student, teacher, k, temperature, reading) >= -1e-9).all()


def test_as_written_can_be_negative() -> None:
    # The student gives the teacher's top class a higher probability: 0.5 ln(0.5 / 0.9) < 0.
    student, teacher = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log() + torch.tensor([1e-6, 0])
    assert_allclose(topk_divergence(student, teacher, 1, 1.0, "as-written"), [0.5 * math.log(5 / 9)], atol=1e-5)


@every_reading
@given(seeds, class_counts, st.integers(1, 14), temperatures, st.sampled_from([-1e5, -50.0, 3.0, 1e5]))
def test_equal_up_to_a_shift_is_zero(
    reading: Reading, seed: int, classes: int, k: int, temperature: float, shift: float
) -> None:
    teacher = random_logits(seed, classes)[1]
    student = (teacher + shift).requires_grad_()
    divergence = topk_divergence(student, teacher, k, temperature, reading)
    assert_allclose(divergence.detach(), np.zeros(4), atol=1e-7)
    if reading in KL_READINGS:
        (gradient,) = torch.autograd.grad(divergence.sum(), student)
        assert_allclose(gradient, np.zeros(gradient.shape), atol=1e-7)


@every_reading
@pytest.mark.parametrize("k", [1, 3, 6])
def test_topk_gradients(reading: Reading, k: int) -> None:
    student, teacher = random_logits(1, 6, std=1.0)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: topk_divergence(logits, teacher, k, 2.0, reading), student)


@given(seeds, class_counts, st.data())
def test_renormalized_ignores_other_classes(seed: int, classes: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, classes))
    student, teacher = random_logits(seed, classes)
    outside = torch.ones_like(teacher).scatter(1, teacher.argsort(1, descending=True)[:, :k], 0).bool()

    def gradient(reading: Reading) -> Tensor:
        logits = student.clone().requires_grad_()
        return torch.autograd.grad(topk_divergence(logits, teacher, k, 2.0, reading).sum(), logits)[0]

    assert (gradient("renormalized")[outside] == 0).all()
    assert (gradient("as-written")[outside] != 0).all()
    moved = torch.where(outside, student + 5, student)
    unmoved, after = (topk_divergence(logits, teacher, k, 2.0, "renormalized") for logits in (student, moved))
    assert torch.equal(unmoved, after)


@every_reading
def test_teacher_ranks_the_classes(reading: Reading) -> None:
    student, teacher = random_logits(3, 8)
    swapped = topk_divergence(teacher, student, 3, 2.0, reading)
    assert not torch.allclose(topk_divergence(student, teacher, 3, 2.0, reading), swapped)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert_allclose(
        topk_divergence(student[:, order], teacher[:, order], 3, 2.0, reading),
        topk_divergence(student, teacher, 3, 2.0, reading),
        rtol=1e-12,
    )


@every_reading
@pytest.mark.parametrize("k", [2, 5])
def test_no_gradient_to_the_teacher(reading: Reading, k: int) -> None:
    student, teacher = random_logits(0, 5)
    student.requires_grad_()
    teacher.requires_grad_()
    topk_divergence(student, teacher, k, 2.0, reading).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


@every_reading
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("under_autocast", [False, True])
def test_half_precision_is_computed_in_float32(reading: Reading, dtype: torch.dtype, under_autocast: bool) -> None:
    student, teacher = (logits.to(dtype) for logits in random_logits(0, 50))
    settings = config.Supervision(k=5, reading=reading)
    labels = torch.arange(4)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=under_autocast):
        divergence = topk_divergence(student, teacher, 5, 2.0, reading)
        losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, labels), labels)
    assert divergence.dtype == losses.mean.dtype == losses.cross_entropy.dtype == torch.float32
    expected = topk_divergence(student.double(), teacher.double(), 5, 2.0, reading)
    assert_allclose(divergence, expected, rtol=2e-5, atol=2e-6)
    exact = functional.cross_entropy(student.double(), labels, reduction="none")
    assert_allclose(losses.cross_entropy, exact, rtol=1e-5)


@every_reading
@given(seeds, st.integers(3, 9), st.booleans(), temperatures, st.data())
def test_classes_excluded_by_the_teacher_add_nothing(
    reading: Reading, seed: int, classes: int, by_student_too: bool, temperature: float, data: st.DataObject
) -> None:
    excluded = data.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes - 1, unique=True))
    # the order of excluded classes is undefined, and "renormalized" uses the student's logits for the top k
    k = data.draw(st.integers(1, classes if by_student_too else classes - len(excluded)))
    student, teacher = random_logits(seed, classes)
    teacher[:, excluded] = -math.inf
    if by_student_too:
        student[:, excluded] = -math.inf
    student.requires_grad_()
    divergence = topk_divergence(student, teacher, k, temperature, reading, scale_by_t2=False)
    expected = [
        explicit_sum(s, t, k, temperature, reading) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert_allclose(divergence.detach(), expected, rtol=1e-9, atol=1e-12)
    (gradient,) = torch.autograd.grad(divergence.sum(), student)
    assert gradient.isfinite().all()
    if by_student_too:
        assert (gradient[:, excluded] == 0).all()


@every_reading
@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
def test_topk_gradients_with_excluded_classes(reading: Reading, k: int) -> None:
    student, teacher = random_logits(2, 6, std=1.0)
    student.requires_grad_()
    out = torch.tensor([0, 1, 0, 1, 1, 0]).bool()

    def divergence(logits: Tensor) -> Tensor:
        return topk_divergence(logits.masked_fill(out, -math.inf), teacher.masked_fill(out, -math.inf), k, 2.0, reading)

    assert torch.autograd.gradcheck(divergence, student)


@every_reading
def test_class_excluded_by_the_student_alone_is_infinite(reading: Reading) -> None:
    student, teacher = torch.tensor([[-math.inf, 1.0, 2.0]]), torch.tensor([[3.0, 2.0, 1.0]])
    assert topk_divergence(student, teacher, 2, 2.0, reading) == math.inf


@every_reading
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@given(arrays(np.float32, (2, 3, 5), elements=st.sampled_from([-1e4, -1.0, 0.0, 1e4])), st.integers(1, 6), temperatures)
def test_extreme_logits_stay_finite(
    reading: Reading, dtype: torch.dtype, logits: NDArray[np.float32], k: int, temperature: float
) -> None:
    student, teacher = torch.tensor(logits).to(dtype)
    student = student.clone().requires_grad_()
    settings, labels = config.Supervision(1.0, k, temperature, reading), torch.tensor([0, 1, 2])
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, labels), labels)
    losses.mean.backward()
    assert all(value.isfinite().all() for value in losses.log_values().values())
    assert student.grad is not None
    assert student.grad.isfinite().all()


def divergence_of(student: Tensor, teacher: Tensor, settings: config.Supervision) -> Tensor:
    labels = torch.arange(4) % student.shape[1]
    return compute_divergence(student, soft_labels_from_logits(teacher, settings, labels), labels, settings)


def standardized(logits: Sequence[float]) -> list[float]:
    """z-scores as in Sun et al. (arXiv 2403.01427), in float64."""
    values = np.array(logits, np.float64)
    return list((values - values.mean()) / values.std(ddof=1))


@every_reading
@given(seeds, st.integers(2, 12), st.integers(1, 14), temperatures)
def test_standardized_logits(reading: Reading, seed: int, classes: int, k: int, temperature: float) -> None:
    student, teacher = random_logits(seed, classes)
    assume(min(student.std(1).min(), teacher.std(1).min()) > 0.01)  # below 0.001 it is limited
    divergence = topk_divergence(student, teacher, k, temperature, reading, scale_by_t2=False, standardize=True)
    expected = [
        explicit_sum(standardized(s), standardized(t), k, temperature, reading)
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert_allclose(divergence, expected, rtol=1e-9, atol=1e-12)
    scaled = topk_divergence(3 * student + 5, 0.2 * teacher - 1, k, temperature, reading, False, True)
    assert_allclose(scaled, divergence, rtol=1e-9, atol=1e-12)


def test_standardized_logits_may_be_equal() -> None:
    student, teacher = torch.zeros(1, 4, requires_grad=True), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    divergence = topk_divergence(student, teacher, 4, 2.0, standardize=True)
    (gradient,) = torch.autograd.grad(divergence.sum(), student)
    assert gradient.isfinite().all()
    assert topk_divergence(teacher, student, 4, 2.0, standardize=True).isfinite().all()


@every_reading
@given(seeds, class_counts, st.integers(1, 14), temperatures, st.floats(0.01, 1))
def test_mass_equals_topk_over_the_smallest_nucleus(
    reading: Reading, seed: int, classes: int, k: int, temperature: float, mass: float
) -> None:
    student, teacher = random_logits(seed, classes)
    settings = config.Supervision(k=k, temperature=temperature, reading=reading, scale_by_t2=False, mass=mass)
    expected = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        ranked, fewest = sorted(softmax(t, 1), reverse=True), 1
        while fewest < min(k, classes) and sum(ranked[:fewest]) < mass - 1e-12:
            fewest += 1
        expected.append(explicit_sum(s, t, fewest, temperature, reading))
    assert_allclose(divergence_of(student, teacher, settings), expected, rtol=1e-9, atol=1e-11)


@every_reading
@pytest.mark.parametrize("mass", [0.3, 0.9, 1.0])
def test_mass_gradients(reading: Reading, mass: float) -> None:
    student, teacher = random_logits(3, 6)
    student.requires_grad_()
    settings = config.Supervision(k=5, reading=reading, mass=mass)
    assert torch.autograd.gradcheck(lambda logits: divergence_of(logits, teacher, settings), student)


def test_hard_is_cross_entropy_with_teacher_top1() -> None:
    student, teacher = random_logits(0, 6)
    expected = [-math.log(softmax(s, 1)[int(t.argmax())]) for s, t in zip(student.tolist(), teacher, strict=True)]
    settings = config.Supervision(divergence="hard", temperature=7.0)
    assert_allclose(divergence_of(student, teacher, settings), expected, rtol=1e-12)


@given(seeds, class_counts, temperatures, st.floats(0, 10))
def test_decoupled_equals_explicit_sum(seed: int, classes: int, temperature: float, non_target_weight: float) -> None:
    student, teacher = random_logits(seed, classes)
    labels = torch.arange(4) % classes
    settings = config.Supervision(
        divergence="decoupled",
        temperature=temperature,
        non_target_weight=non_target_weight,
        scale_by_t2=False,
    )
    expected = []
    for s, t, label in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p, q = softmax(t, temperature)[label], softmax(s, temperature)[label]
        not_p, not_q = (sum(softmax(z, temperature)[:label] + softmax(z, temperature)[label + 1 :]) for z in (t, s))
        target = p * math.log(p / q) + not_p * math.log(not_p / not_q)
        s_others, t_others = s[:label] + s[label + 1 :], t[:label] + t[label + 1 :]
        expected.append(target + non_target_weight * explicit_sum(s_others, t_others, classes, temperature, "grouped"))
    assert_allclose(divergence_of(student, teacher, settings), expected, rtol=1e-7, atol=1e-9)


@given(seeds, class_counts, temperatures)
def test_decoupled_parts_recombine_to_kl(seed: int, classes: int, temperature: float) -> None:
    """KL = target part + (1 - p(label)) times the part among the others (arXiv 2203.08679, Eq. 6)."""
    student, teacher = random_logits(seed, classes)
    labels = torch.arange(4) % classes
    scaled = student / temperature, teacher / temperature
    target = decoupled_divergence(*scaled, labels, 0.0)
    others = decoupled_divergence(*scaled, labels, 1.0) - target
    weight = 1 - torch.tensor([softmax(t, temperature)[y] for t, y in zip(teacher.tolist(), labels, strict=True)])
    expected = topk_divergence(student, teacher, classes, temperature, scale_by_t2=False)
    assert_allclose(target + weight * others, expected, rtol=1e-6, atol=1e-9)


@given(seeds, st.integers(2, 12), temperatures)
def test_dist_equals_correlations_by_numpy(seed: int, classes: int, temperature: float) -> None:
    student, teacher = random_logits(seed, classes)
    settings = config.Supervision(divergence="dist", temperature=temperature, scale_by_t2=False)
    p, q = ([softmax(row, temperature) for row in logits.tolist()] for logits in (teacher, student))
    assume(min(np.std(each, axis).min() for each in (p, q) for axis in (0, 1)) > 1e-4)
    over_classes = [1 - np.corrcoef(*rows)[0, 1] for rows in zip(p, q, strict=True)]
    over_views = [1 - np.corrcoef(*columns)[0, 1] for columns in zip(np.transpose(p), np.transpose(q), strict=True)]
    expected = np.array(over_classes) + np.mean(over_views)
    assert_allclose(divergence_of(student, teacher, settings), expected, rtol=1e-6, atol=1e-7)


def test_dist_of_constant_probabilities_is_finite() -> None:
    student, settings = torch.zeros(4, 3, requires_grad=True), config.Supervision(divergence="dist")
    divergence = divergence_of(student, random_logits(0, 3)[1].float(), settings)
    assert_allclose(divergence.detach(), [8.0] * 4)  # T squared times one for views, one for classes
    (gradient,) = torch.autograd.grad(divergence.sum(), student)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("divergence", ["hard", "decoupled", "dist"])
def test_gradients_of_other_divergences(divergence: Divergence) -> None:
    student, teacher = random_logits(4, 5)
    student.requires_grad_()
    settings = config.Supervision(divergence=divergence)
    assert torch.autograd.gradcheck(lambda logits: divergence_of(logits, teacher, settings), student)


ROW = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("student", "teacher", "options", "message"),
    [
        (ROW, ROW, {"k": 0}, "k is 0, but must be an integer of at least 1"),
        (ROW, ROW, {"k": -1}, "k is -1"),
        (ROW, ROW, {"k": 1.5}, "k is 1.5"),
        (ROW, ROW, {"k": math.nan}, "k is nan"),
        (ROW, ROW, {"k": math.inf}, "k is inf"),
        (ROW, ROW, {"temperature": 0.0}, "temperature is 0.0, but must be above 0"),
        (ROW, ROW, {"temperature": -2.0}, "temperature is -2.0"),
        (ROW, ROW, {"temperature": math.nan}, "temperature is nan"),
        (ROW, ROW, {"temperature": math.inf}, "temperature is inf"),
        (ROW, ROW, {"reading": "renormalised"}, "'renormalised', but must be one of as-written, renormalized, grouped"),
        (ROW, torch.zeros(2, 4), {}, r"student's are \[2, 3\], the teacher's \[2, 4\]"),
        (ROW[0], ROW[0], {}, r"logits must both be \[N,C\]; the student's are \[3\]"),
        (ROW[None], ROW[None], {}, r"logits must both be \[N,C\]"),
        (ROW.long(), ROW, {}, "logits must be floating point, not torch.int64 and torch.float32"),
        (ROW, ROW.long(), {}, "logits must be floating point"),
    ],
)  # fmt: skip
def test_invalid_arguments(student: Tensor, teacher: Tensor, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        topk_divergence(student, teacher, **({"k": 2, "temperature": 2.0} | options))


def test_k_of_any_integral_type() -> None:
    student, teacher = random_logits(0, 6)
    expected = topk_divergence(student, teacher, 3, 2.0)
    for k in (3.0, np.int64(3)):
        assert torch.equal(topk_divergence(student, teacher, k, 2.0), expected)


@pytest.mark.parametrize("settings", [{"divergence": "other"}, {"reading": "other"}])
def test_an_unknown_divergence_is_never_computed_as_another(settings: dict[str, str]) -> None:
    student, teacher = random_logits(0, 5)
    labels = torch.zeros(len(student), dtype=torch.int64)
    soft_labels = soft_labels_from_logits(teacher, config.Supervision(k=3), labels)
    with pytest.raises(AssertionError, match="other"):
        compute_divergence(student, soft_labels, labels, config.Supervision(k=3, **settings))
