"""The loss of each view, compared with NumPy."""

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
from kdaug.supervision import (
    LossOutput,
    MixedLabels,
    concat_losses,
    distillation_loss,
    soft_labels_from_logits,
    topk_divergence,
)
from kdaug.supervision.adaptive import visible_label_prob

LABELS = torch.tensor([0, 5, 2, 2])
UNAUGMENTED_LABEL_LOG_PROB = torch.tensor([0.9, 0.2, 0.5, 1e-30], dtype=torch.float64).log()


def random_logits(seed: int, classes: int = 6) -> tuple[Tensor, Tensor]:
    """Student's and teacher's logits of four images, float64 [4,classes]."""
    student, teacher = np.random.default_rng(seed).normal(0, 3, (2, 4, classes))
    return torch.tensor(student), torch.tensor(teacher)


def softmax(logits: Tensor, temperature: float = 1) -> NDArray[np.float64]:
    powers = np.exp((logits.numpy() - logits.numpy().max(1, keepdims=True)) / temperature)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("label_weight", [0.0, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_weighted_cross_entropy_plus_divergence(weight: float, label_weight: float, smoothing: float) -> None:
    student, teacher = random_logits(0)
    settings = config.Supervision(weight, 3, 4.0, "grouped", label_weight=label_weight, label_smoothing=smoothing)
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, LABELS), LABELS)
    targets = np.full((4, 6), smoothing / 6)
    targets[np.arange(4), LABELS] += 1 - smoothing
    cross_entropy = -(targets * np.log(softmax(student))).sum(1)
    divergence = topk_divergence(student, teacher, 3, 4.0, "grouped").numpy()
    assert_allclose(losses.cross_entropy, cross_entropy, rtol=1e-12)
    assert losses.divergence is not None
    assert_allclose(losses.divergence, divergence, rtol=1e-12)
    assert_allclose(losses.loss, label_weight * cross_entropy + weight * divergence, rtol=1e-12)
    assert_allclose(losses.mean, losses.loss.mean(), rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_class_weights_are_of_the_cross_entropy_alone(smoothing: float, mixed: bool) -> None:
    """Each of the two labels of a mixed view has the weight of its own class."""
    student, teacher = random_logits(4)
    class_weight = torch.tensor([0.5, 1.0, 3.0, 1.0, 1.0, 0.1], dtype=torch.float64)
    settings = config.Supervision(0.7, label_smoothing=smoothing, label_weight=2.0)
    partner, own_weight = torch.tensor([5, 5, 0, 2]), torch.tensor([1.0, 0.25, 0.5, 0.0], dtype=torch.float64)
    mixed_labels = MixedLabels(partner, own_weight) if mixed else None
    soft_labels = soft_labels_from_logits(teacher, settings, LABELS)
    log_probs = np.log(softmax(student))

    def cross_entropy(labels: Tensor) -> NDArray[np.float64]:
        return -(1 - smoothing) * log_probs[np.arange(4), labels] - smoothing * log_probs.mean(1)

    share = own_weight.numpy() if mixed else np.ones(4)
    plain = share * cross_entropy(LABELS) + (1 - share) * cross_entropy(partner)
    weights = class_weight.numpy()
    weighted = share * weights[LABELS] * cross_entropy(LABELS)
    weighted += (1 - share) * weights[partner] * cross_entropy(partner)
    losses = distillation_loss(settings, student, soft_labels, LABELS, None, mixed_labels, class_weight)
    assert losses.divergence is not None
    assert_allclose(losses.cross_entropy, plain, rtol=1e-12)
    assert_allclose(losses.divergence, topk_divergence(student, teacher, 5, 2.0), rtol=1e-12)
    assert_allclose(losses.loss, 2 * weighted + 0.7 * losses.divergence.numpy(), rtol=1e-12)
    alone = distillation_loss(settings, student, None, LABELS, None, mixed_labels, class_weight)
    assert_allclose(alone.loss, weighted, rtol=1e-12)


def test_weight_per_view() -> None:
    student, teacher = random_logits(1)
    settings, weight = config.Supervision(weight=9.0), torch.tensor([0.0, 1.0, 2.0, 3.5])
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, LABELS), LABELS, weight)
    assert losses.divergence is not None
    assert_allclose(losses.loss, losses.cross_entropy + weight * losses.divergence, rtol=1e-12)


@given(st.integers(0, 2**32 - 1), st.floats(0, 3), st.floats(0, 3))
def test_label_trust_moves_weight_to_the_divergence(seed: int, weight: float, label_weight: float) -> None:
    student, teacher = random_logits(seed)
    settings = config.Supervision(weight, label_weight=label_weight, label_trust=True)
    soft_labels = soft_labels_from_logits(teacher, settings, LABELS)
    soft_labels = replace(soft_labels, unaugmented_label_log_prob=UNAUGMENTED_LABEL_LOG_PROB)
    losses = distillation_loss(settings, student, soft_labels, LABELS)
    on_view, on_clean = softmax(teacher)[np.arange(4), LABELS], UNAUGMENTED_LABEL_LOG_PROB.exp().numpy()
    trust = np.minimum(1, on_view / on_clean)
    assert losses.divergence is not None
    assert losses.trust is not None
    assert_allclose(losses.trust, trust, rtol=1e-9)
    cross_entropy, divergence = losses.cross_entropy.numpy(), losses.divergence.numpy()
    expected = trust * label_weight * cross_entropy + (weight + (1 - trust) * label_weight) * divergence
    assert_allclose(losses.loss, expected, rtol=1e-9, atol=1e-12)
    assert_allclose(losses.log_values()["label_trust"], 100 * trust, rtol=1e-9)


def test_dropped_views_have_no_gradient() -> None:
    student, teacher = random_logits(2)
    student.requires_grad_()
    settings = config.Supervision(drop_worst=0.5)
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, LABELS), LABELS)
    soft_labels = soft_labels_from_logits(teacher, settings, LABELS)
    undropped = distillation_loss(config.Supervision(), student, soft_labels, LABELS)
    kept = np.argsort(softmax(teacher)[np.arange(4), LABELS])[2:]
    assert_allclose(losses.mean.detach(), undropped.loss.detach()[kept].mean(), rtol=1e-12)
    (gradient,) = torch.autograd.grad(losses.mean, student)
    assert sorted(np.flatnonzero(gradient.abs().sum(1))) == sorted(kept)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 6]), st.booleans())
def test_views_of_which_the_teacher_is_not_sure_are_trained_on_the_label(seed: int, k: int, standardize: bool) -> None:
    """As FerKD: with label_weight 0, a view has either the soft label or the smoothed one."""
    student, teacher = random_logits(seed)
    settings = config.Supervision(
        0.7, k, 4.0, label_weight=0.0, label_smoothing=0.1, min_confidence=0.8, standardize_logits=standardize
    )
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, LABELS), LABELS)
    log_probs = np.log(softmax(student))
    smoothed = -0.9 * log_probs[np.arange(4), LABELS] - 0.1 * log_probs.mean(1)
    divergence = topk_divergence(student, teacher, k, 4.0, standardize=standardize).numpy()
    expected = 0.7 * np.where(softmax(teacher).max(1) >= 0.8, divergence, smoothed)
    assert_allclose(losses.loss, expected, rtol=1e-9)


def test_agreement() -> None:
    student = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0], [0.0, 1.0, 9.0]])
    teacher = torch.tensor([[9.0, 8.0, 7.0], [1.0, 0.0, 2.0], [0.0, 0.0, 0.1]])
    settings = config.Supervision()
    labels = torch.tensor([1, 1, 1])
    losses = distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, labels), labels)
    assert losses.log_values()["teacher_agreement"].tolist() == [100, 0, 100]


@pytest.mark.parametrize("settings", [config.Supervision(), config.Supervision(label_weight=0.0, drop_worst=0.5)])
def test_without_a_teacher_the_loss_is_cross_entropy(settings: config.Supervision) -> None:
    student, _ = random_logits(0)
    losses = distillation_loss(settings, student, None, LABELS)
    assert losses.divergence is None
    assert torch.equal(losses.loss, functional.cross_entropy(student, LABELS, reduction="none"))
    assert losses.log_values().keys() == {"loss", "cross_entropy"}


def test_log_values_are_detached() -> None:
    loss, cross_entropy, divergence = (torch.tensor([value], requires_grad=True) for value in (3.0, 2.0, 1.0))
    values = LossOutput(loss, cross_entropy, divergence).log_values()
    assert {name: float(value) for name, value in values.items()} == {"loss": 3, "cross_entropy": 2, "divergence": 1}
    assert not any(value.requires_grad for value in values.values())


def test_mixed_labels_weight_both_cross_entropies() -> None:
    student, _ = random_logits(3)
    partner_labels, own_weight = torch.tensor([1, 1, 0, 3]), torch.tensor([0.25, 0.5, 1.0, 0.0])
    losses = distillation_loss(
        config.Supervision(label_smoothing=0.1),
        student,
        None,
        LABELS,
        mixed_labels=MixedLabels(partner_labels, own_weight),
    )
    targets = np.full((4, 6), 0.1 / 6)
    for row, (label, partner, weight) in enumerate(zip(LABELS, partner_labels, own_weight.tolist(), strict=True)):
        targets[row, label] += 0.9 * weight
        targets[row, partner] += 0.9 * (1 - weight)
    assert_allclose(losses.loss, -(targets * np.log(softmax(student))).sum(1), rtol=1e-12)


def test_label_trust_needs_clean_log_probs() -> None:
    student, teacher = random_logits(0)
    settings = config.Supervision(label_trust=True)
    with pytest.raises(ValueError, match="unaugmented_label_log_prob is None"):
        distillation_loss(settings, student, soft_labels_from_logits(teacher, settings, LABELS), LABELS)


@pytest.mark.parametrize("with_teacher", [False, True])
def test_concat_losses_of_parts_equals_the_whole(with_teacher: bool) -> None:
    student, teacher = random_logits(4)
    settings = config.Supervision(k=2)

    def losses_of(rows: slice) -> LossOutput:
        soft_labels = soft_labels_from_logits(teacher[rows], settings, LABELS[rows]) if with_teacher else None
        return distillation_loss(settings, student[rows], soft_labels, LABELS[rows])

    whole = losses_of(slice(None)).fields_present()
    parts = concat_losses([losses_of(slice(0, 1)), losses_of(slice(1, 4))]).fields_present()
    assert parts.keys() == whole.keys()
    for name, value in whole.items():
        assert_allclose(parts[name], value, rtol=1e-12)


@pytest.mark.parametrize("power", [0.5, 2.0, 4.0])
def test_softened_label_is_that_of_soft_augmentation(power: float) -> None:
    """Liu et al., CVPR 2023, Eq. 3, against NumPy: chance if nothing is visible, 1 if all is."""
    student, _ = random_logits(5)
    visible = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    prob = visible_label_prob(visible, power, 6)
    expected = 1 - (1 - 1 / 6) * (1 - visible.numpy()) ** power
    assert_allclose(prob, expected, rtol=1e-12)
    assert (prob[0].item(), prob[3].item()) == (pytest.approx(1 / 6), 1.0)
    target = np.repeat((1 - expected[:, None]) / 5, 6, axis=1)
    target[np.arange(4), LABELS.numpy()] = expected
    losses = distillation_loss(config.Supervision(), student, None, LABELS, label_prob=prob)
    assert_allclose(losses.loss, -(target * np.log(softmax(student))).sum(1), rtol=1e-9)


def test_softened_label_with_teacher_and_class_weights() -> None:
    """Only the cross-entropy is softened; the class weight is that of the label."""
    student, teacher = random_logits(6)
    settings = config.Supervision()
    prob, class_weight = torch.full((4,), 0.5, dtype=torch.float64), torch.arange(1.0, 7.0, dtype=torch.float64)
    soft_labels = soft_labels_from_logits(teacher, settings, LABELS)
    losses = distillation_loss(settings, student, soft_labels, LABELS, label_prob=prob, class_weight=class_weight)
    plain = distillation_loss(settings, student, soft_labels, LABELS)
    assert losses.divergence is not None
    assert plain.divergence is not None
    assert_allclose(losses.divergence, plain.divergence)
    assert_allclose(losses.loss, class_weight[LABELS] * losses.cross_entropy + settings.weight * losses.divergence)
    assert not torch.allclose(losses.cross_entropy, plain.cross_entropy)
