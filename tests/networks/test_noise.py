"""ShakeDrop and Shake-Shake: distributions of the factors, per image, and evaluation as the mean over draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdaug.networks.noise import ShakeDrop, ShakeShake, scaled

DRAWS = 20_000


def assert_uniform(values: Tensor, lowest: float, highest: float) -> None:
    """Kolmogorov-Smirnov test at a level of one in a million."""
    ordered = values.double().sort().values
    even = lowest + (highest - lowest) * torch.linspace(0, 1, len(ordered), dtype=torch.float64)
    assert (ordered - even).abs().max() / (highest - lowest) < 2.7 / len(ordered) ** 0.5


def assert_independent(one: Tensor, other: Tensor) -> None:
    """Neither they nor their squares correlate, at five standard deviations."""
    for a, b in ((one, other), (one.square(), other.square())):
        assert torch.corrcoef(torch.stack([a, b]).double())[0, 1].abs() < 5 / len(one) ** 0.5


def factors_of_shake_drop(keep: float) -> tuple[Tensor, Tensor]:
    """The factors of DRAWS images in the forward and in the backward pass, measured from outputs and gradients."""
    torch.manual_seed(0)
    x = torch.full((DRAWS, 2, 1, 3), 3.0, requires_grad=True)
    y = ShakeDrop(keep).train()(x)
    y.backward(torch.full_like(y, 7.0))
    forward, backward = y.detach() / 3, x.grad / 7
    for factor in (forward, backward):
        assert torch.equal(factor, factor[:, :1, :1, :1].expand_as(factor)), "one factor for the whole image"
    return forward[:, 0, 0, 0], backward[:, 0, 0, 0]


def test_scaled_has_different_forward_and_backward_factors() -> None:
    x = torch.tensor([2.0, 3.0], dtype=torch.float64, requires_grad=True)
    y = scaled(x, torch.tensor([-0.5, 1.0]), torch.tensor([0.25, 1.0]))
    y.sum().backward()
    assert y.tolist() == [-1.0, 3.0]
    assert x.grad.tolist() == [0.25, 1.0]


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_shake_drop_keeps_some_images_and_scales_the_others(keep: float) -> None:
    forward, backward = factors_of_shake_drop(keep)
    kept = (forward - 1).abs() < 1e-6
    assert torch.equal(kept, (backward - 1).abs() < 1e-6), "the same images are kept in both passes"
    assert abs(kept.double().mean() - keep) < 5 * (keep * (1 - keep) / DRAWS) ** 0.5
    assert_uniform(forward[~kept], -1, 1)
    assert_uniform(backward[~kept], 0, 1)
    assert_independent(forward[~kept], backward[~kept])


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_shake_drop_in_evaluation_is_the_mean_over_draws(keep: float) -> None:
    forward, _ = factors_of_shake_drop(keep)
    evaluated = ShakeDrop(keep).eval()(torch.ones(1, 1, 1, 1)).item()
    assert evaluated == pytest.approx(keep)
    assert abs(forward.double().mean() - evaluated) < 5 * forward.std() / DRAWS**0.5


def test_shake_shake_weights_differ_forward_and_backward() -> None:
    torch.manual_seed(0)
    left = torch.zeros(DRAWS, 2, 1, 3, requires_grad=True)
    right = torch.ones(DRAWS, 2, 1, 3, requires_grad=True)
    mixed = ShakeShake().train()(left, right)
    mixed.sum().backward()
    forward, backward = 1 - mixed.detach(), left.grad
    for share in (forward, backward):
        assert torch.equal(share, share[:, :1, :1, :1].expand_as(share)), "one factor for the whole image"
    torch.testing.assert_close(left.grad + right.grad, torch.ones_like(left))
    assert_uniform(forward[:, 0, 0, 0], 0, 1)
    assert_uniform(backward[:, 0, 0, 0], 0, 1)
    assert_independent(forward[:, 0, 0, 0], backward[:, 0, 0, 0])


def test_shake_shake_in_evaluation_is_the_mean() -> None:
    left, right = torch.randn(2, 3, 4, 5, 6)
    evaluated = ShakeShake().eval()(left, right)
    torch.testing.assert_close(evaluated, (left + right) / 2)
    torch.manual_seed(0)
    many = ShakeShake().train()(left[:1].expand(DRAWS, 4, 5, 6), right[:1].expand(DRAWS, 4, 5, 6))
    torch.testing.assert_close(many.double().mean(0), evaluated[0].double(), atol=0.05, rtol=0)
    spread = 5 * (left[0] - right[0]).abs().double() * (1 / 12 / DRAWS) ** 0.5
    assert ((many.double().mean(0) - evaluated[0]).abs() <= spread + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_keeps_the_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(4, 2, 3, 3).to(dtype).requires_grad_()
    assert ShakeDrop(0.5).train()(x).dtype == dtype
    assert ShakeShake().train()(x, x).dtype == dtype
