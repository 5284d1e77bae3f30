"""Optimisation: torch's pieces, put together, do what the recipe says, step by step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from kdaug import InputError
from kdaug.config import Optimization
from kdaug.training.checkpoints import TrainingState
from kdaug.training.loop import _optimize
from kdaug.training.optimization import autocast, create_optimizer, create_schedule, find_device, find_precision

CPU = torch.device("cpu")


class Point(nn.Module):
    """Two parameters in float64, whose loss is a steep bowl: the gradient is curvature times distance from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([[0.1, 4.0]], dtype=torch.float64))

    def loss(self) -> torch.Tensor:
        return 0.5 * (8 * (self.a - 1) ** 2).sum() + 0.5 * (0.3 * (self.b - 1) ** 2).sum()


@pytest.mark.parametrize("clip_norm", [None, 0.5, 5.0, 1e9])
def test_a_step_is_nesterov_sgd_with_l2_decay_and_clipping_along_a_cosine(clip_norm: float | None) -> None:
    steps = 12
    settings = Optimization(learning_rate=0.07, momentum=0.8, weight_decay=0.02, clip_norm=clip_norm)
    network = Point()
    optimizer = create_optimizer(network, settings)
    state = TrainingState(network, optimizer, create_schedule(optimizer, steps))

    w = np.array([3.0, -2.0, 0.5, 0.1, 4.0])
    curvature, velocity = np.array([8, 8, 8, 0.3, 0.3]), np.zeros(5)
    for step in range(steps):
        used = _optimize(state, network.loss(), clip_norm)
        state.schedule.step()

        rate = 0.07 * (1 + math.cos(math.pi * step / steps)) / 2
        gradient = curvature * (w - 1)
        norm = math.sqrt((gradient**2).sum())
        if clip_norm is not None and norm > clip_norm:
            gradient = gradient * clip_norm / norm
        gradient = gradient + 0.02 * w
        velocity = 0.8 * velocity + gradient
        w = w - rate * (gradient + 0.8 * velocity)

        assert used == pytest.approx(rate, rel=1e-12)
        got = torch.cat([network.a.detach(), network.b.detach().ravel()]).numpy()
        np.testing.assert_allclose(got, w, atol=1e-5)  # torch adds 1e-6 to the norm it clips by


def test_decay_is_on_every_parameter_and_the_last_rate_is_zero() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = create_optimizer(network, Optimization(weight_decay=0.3))
    schedule = create_schedule(optimizer, 5)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.3}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(network.parameters()))
    for _ in range(5):
        optimizer.step()
        schedule.step()
    assert schedule.get_last_lr() == [pytest.approx(0, abs=1e-12)]


@pytest.mark.parametrize(("asked", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_a_precision_asked_for_is_the_one_computed_in(asked: str, dtype: torch.dtype) -> None:
    assert find_precision(Optimization(precision=asked), CPU) is dtype
    with autocast(CPU, dtype):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_only_where_the_processor_multiplies_it(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert find_precision(Optimization(), CPU) is dtype


def test_auto_is_a_gpu_if_there_is_one_else_the_cpu() -> None:
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x", "mps:7"])
def test_a_device_that_cannot_be_had_is_named_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"^run.device {name} cannot be used: [^\n]+$"):
        find_device(name)
