"""What the student is told of each view: label and divergence weighed as the settings say, written out in NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from kdaug import config
from kdaug.supervision import LossOutput, distillation_loss, soft_labels_from_logits, topk_divergence

LABELS = torch.tensor([0, 5, 2, 2])
CLEAN = torch.tensor([0.9, 0.2, 0.5, 1e-30], dtype=torch.float64).log()


def two_logits(seed: int, classes: int = 6) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits of four images, float64 [4,classes]."""
    student, teacher = np.random.default_rng(seed).normal(0, 3, (2, 4, classes))
    return torch.tensor(student), torch.tensor(teacher)


def softmax(logits: Tensor, temperature: float = 1) -> NDArray[np.float64]:
    powers = np.exp((logits.numpy() - logits.numpy().max(1, keepdims=True)) / temperature)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("label_weight", [0.0, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_supervision_is_cross_entropy_plus_divergence_each_weighted_of_every_image(
    weight: float, label_weight: float, smoothing: float
) -> None:
    student, teacher = two_logits(0)
    settings = config.Supervision(weight, 3, 4.0, "grouped", label_weight=label_weight, label_smoothing=smoothing)
    told = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings), LABELS)
    shares = np.full((4, 6), smoothing / 6)
    shares[np.arange(4), LABELS] += 1 - smoothing
    cross_entropy = -(shares * np.log(softmax(student))).sum(1)
    divergence = topk_divergence(student, teacher, 3, 4.0, "grouped").numpy()
    assert_allclose(told.cross_entropy, cross_entropy, rtol=1e-12)
    assert told.divergence is not None
    assert_allclose(told.divergence, divergence, rtol=1e-12)
    assert_allclose(told.loss, label_weight * cross_entropy + weight * divergence, rtol=1e-12)
    assert_allclose(told.total, told.loss.mean(), rtol=1e-12)


def test_every_view_may_have_a_weight_of_its_own() -> None:
    student, teacher = two_logits(1)
    settings, weight = config.Supervision(weight=9.0), torch.tensor([0.0, 1.0, 2.0, 3.5])
    told = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings), LABELS, weight)
    assert told.divergence is not None
    assert_allclose(told.loss, told.cross_entropy + weight * told.divergence, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0, 3), st.floats(0, 3))
def test_trust_moves_the_labels_weight_to_the_divergence_at_a_fixed_total(
    seed: int, weight: float, label_weight: float
) -> None:
    student, teacher = two_logits(seed)
    settings = config.Supervision(weight, label_weight=label_weight, label_trust=True)
    answer = replace(soft_labels_from_logits(teacher, settings, LABELS), clean=CLEAN)
    told = distillation_loss(settings, student, answer, LABELS)
    on_view, on_clean = softmax(teacher)[np.arange(4), LABELS], CLEAN.exp().numpy()
    trust = np.minimum(1, on_view / on_clean)
    assert told.divergence is not None
    assert told.trust is not None
    assert_allclose(told.trust, trust, rtol=1e-9)
    cross_entropy, divergence = told.cross_entropy.numpy(), told.divergence.numpy()
    expected = trust * label_weight * cross_entropy + (weight + (1 - trust) * label_weight) * divergence
    assert_allclose(told.loss, expected, rtol=1e-9, atol=1e-12)
    assert_allclose(told.parts()["label_trust"], 100 * trust, rtol=1e-9)


def test_worst_views_are_not_learned_and_the_mean_is_over_the_others() -> None:
    student, teacher = two_logits(2)
    student.requires_grad_()
    settings = config.Supervision(drop_worst=0.5)
    told = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, LABELS), LABELS)
    all_of_them = distillation_loss(
        config.Supervision(), student, soft_labels_from_logits(teacher, settings, LABELS), LABELS
    )
    learned = np.argsort(softmax(teacher)[np.arange(4), LABELS])[2:]
    assert_allclose(told.total.detach(), all_of_them.loss.detach()[learned].mean(), rtol=1e-12)
    (slope,) = torch.autograd.grad(told.total, student)
    assert sorted(np.flatnonzero(slope.abs().sum(1))) == sorted(learned)


def test_agreement_is_where_student_and_teacher_put_the_same_class_first() -> None:
    student = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [0.0, 1.0, 9.0]])
    teacher = torch.tensor([[9.0, 8.0, 7.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.1]])
    settings = config.Supervision()
    told = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings), torch.tensor([1, 1, 1]))
    assert told.parts()["teacher_agreement"].tolist() == [100, 0, 100]


@pytest.mark.parametrize("settings", [config.Supervision(), config.Supervision(label_weight=0.0, drop_worst=0.5)])
def test_without_a_teacher_it_is_the_cross_entropy_alone(settings: config.Supervision) -> None:
    student, _ = two_logits(0)
    told = distillation_loss(settings, student, None, LABELS)
    assert told.divergence is None
    assert torch.equal(told.loss, functional.cross_entropy(student, LABELS, reduction="none"))
    assert told.parts().keys() == {"loss", "cross_entropy"}


def test_parts_go_by_the_names_they_are_logged_under_and_hold_no_graph() -> None:
    loss, cross_entropy, divergence = (torch.tensor([value], requires_grad=True) for value in (3.0, 2.0, 1.0))
    parts = LossOutput(loss, cross_entropy, divergence).parts()
    assert {name: float(value) for name, value in parts.items()} == {"loss": 3, "cross_entropy": 2, "divergence": 1}
    assert not any(value.requires_grad for value in parts.values())
