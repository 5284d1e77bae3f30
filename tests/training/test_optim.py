"""Optimization: updates, learning rates, averages and precision equal their formulas, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn

from kdaug import InputError
from kdaug.config import Optimization, Run
from kdaug.device import autocast, check_cuda_graphs, find_device, find_precision
from kdaug.training.optim import LearningRateSchedule, create_ema, create_optimizer, create_scaler
from kdaug.training.state import TrainState
from kdaug.training.step import optimizer_step

CPU = torch.device("cpu")
START = np.array([3.0, -2.0, 0.5, 0.1, 4.0])
CURVATURE = np.array([8, 8, 8, 0.3, 0.3])
Update = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


class Point(nn.Module):
    """Two parameters in float64 with a quadratic loss: the gradient is curvature times distance from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(START[:3]))
        self.b = nn.Parameter(torch.tensor(START[None, 3:]))

    def loss(self) -> torch.Tensor:
        return 0.5 * (8 * (self.a - 1) ** 2).sum() + 0.5 * (0.3 * (self.b - 1) ** 2).sum()

    def values(self) -> np.ndarray:
        return torch.cat([self.a.detach(), self.b.detach().ravel()]).numpy()


def create_state(network: nn.Module, settings: Optimization, steps_per_epoch: int) -> TrainState:
    optimizer = create_optimizer(network, settings)
    rate, scaler = LearningRateSchedule(optimizer, settings, steps_per_epoch), create_scaler(CPU, torch.float32)
    return TrainState(network, network, optimizer, rate, scaler, create_ema(network, settings))


def nesterov(settings: Optimization) -> Update:
    velocity = np.zeros(5)

    def update(w: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal velocity
        gradient = gradient + settings.weight_decay * w
        velocity = settings.momentum * velocity + gradient
        return w - rate * (gradient + settings.momentum * velocity)

    return update


def tensorflow_rmsprop(settings: Optimization) -> Update:
    """ms <- 0.9 ms + 0.1 g^2 from ms = 1; mom <- momentum mom + rate g / sqrt(ms + 0.001); w <- w - mom."""
    mean_square, step = np.ones(5), np.zeros(5)

    def update(w: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal mean_square, step
        gradient = gradient + settings.weight_decay * w
        mean_square = 0.9 * mean_square + 0.1 * gradient**2
        step = settings.momentum * step + rate * gradient / np.sqrt(mean_square + 1e-3)
        return w - step

    return update


def adam_with_decoupled_decay(settings: Optimization) -> Update:
    first, second, count = np.zeros(5), np.zeros(5), 0

    def update(w: np.ndarray, gradient: np.ndarray, rate: float) -> np.ndarray:
        nonlocal first, second, count
        count += 1
        first = settings.momentum * first + (1 - settings.momentum) * gradient
        second = 0.999 * second + 0.001 * gradient**2
        unbiased = first / (1 - settings.momentum**count), second / (1 - 0.999**count)
        return w * (1 - rate * settings.weight_decay) - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)

    return update


@pytest.mark.parametrize("clip_norm", [None, 0.5, 5.0, 1e9])
@pytest.mark.parametrize(
    ("name", "formula"),
    [("sgd", nesterov), ("rmsprop-tf", tensorflow_rmsprop), ("adamw", adam_with_decoupled_decay)],
)
def test_steps_equal_the_formulas_of_each_optimizer(
    name: str, formula: Callable[[Optimization], Update], clip_norm: float | None
) -> None:
    settings = Optimization(
        optimizer=name, epochs=3, learning_rate=0.07, momentum=0.8, weight_decay=0.02, clip_norm=clip_norm
    )
    network = Point()
    state, update, w = create_state(network, settings, 4), formula(settings), START
    for step in range(12):
        state.learning_rate.set(state.step)
        network.loss().backward()
        optimizer_step(state, clip_norm)

        gradient = CURVATURE * (w - 1)
        norm = math.sqrt((gradient**2).sum())
        if clip_norm is not None and norm > clip_norm:
            gradient = gradient * clip_norm / norm
        w = update(w, gradient, 0.07 * (1 + math.cos(math.pi * step / 12)) / 2)
        np.testing.assert_allclose(network.values(), w, atol=1e-5)  # torch adds 1e-6 to the norm
    assert state.step == 12


def test_the_moving_average_is_that_of_tensorflow() -> None:
    """shadow <- shadow - (1 - decay) (shadow - w), decay = min(0.7, (1 + n) / (10 + n)) at the n-th step from 0."""
    settings = Optimization(ema_decay=0.7, learning_rate=0.01, epochs=5)
    network = Point()
    state, shadow = create_state(network, settings, 10), START
    for n in range(30):
        state.learning_rate.set(state.step)
        network.loss().backward()
        optimizer_step(state, None)
        decay = min(0.7, (1 + n) / (10 + n))
        shadow = decay * shadow + (1 - decay) * network.values()
        np.testing.assert_allclose(state.eval_model.values(), shadow, rtol=1e-9)
    assert state.eval_model is not network


def learning_rates(settings: Optimization, steps_per_epoch: int, steps: int) -> list[float]:
    optimizer = create_optimizer(Point(), settings)
    rate, values = LearningRateSchedule(optimizer, settings, steps_per_epoch), []
    for step in range(steps):
        rate.set(step)
        assert {group["lr"] for group in optimizer.param_groups} == {rate.now()}
        values.append(rate.now())
    return values


def test_a_staircase_decays_every_few_epochs_after_the_warmup() -> None:
    """As the TPU EfficientNet code: 0.97 ** floor(epoch / 2.4), in the first 5 epochs linear from zero instead."""
    settings = Optimization(
        optimizer="rmsprop-tf", schedule="staircase", learning_rate=0.256, warmup_epochs=5, epochs=20
    )
    expected = [0.256 * (s / 50 if s < 50 else 0.97 ** math.floor(s / 24)) for s in range(200)]
    assert learning_rates(settings, 10, 200) == pytest.approx(expected, rel=1e-12)


def test_milestones_take_effect_at_the_first_step_of_their_epoch() -> None:
    settings = Optimization(
        schedule="milestones", milestones=(2, 3.5), decay_rate=0.2, learning_rate=0.5, warmup_epochs=0.5, epochs=5
    )
    expected = [0.0, 0.25 / 2, 0.25, 0.75 / 2] + [0.5] * 12 + [0.1] * 12 + [0.02] * 12
    assert learning_rates(settings, 8, 40) == pytest.approx(expected)


@pytest.mark.parametrize(("clean_rate", "first"), [(None, 0.02), (0.07, 0.07)])
def test_clean_epochs_have_their_own_cosine(clean_rate: float | None, first: float) -> None:
    settings = Optimization(learning_rate=0.2, epochs=2, clean_epochs=3, clean_learning_rate=clean_rate)
    main = [0.1 * (1 + math.cos(math.pi * s / 8)) for s in range(8)]
    clean = [first / 2 * (1 + math.cos(math.pi * s / 12)) for s in range(12)]
    assert learning_rates(settings, 4, 20) == pytest.approx([*main, *clean])


def test_the_rate_depends_on_the_step_alone() -> None:
    settings = Optimization(schedule="staircase", warmup_epochs=1, epochs=4, clean_epochs=1)
    rate = LearningRateSchedule(create_optimizer(Point(), settings), settings, 5)
    expected = learning_rates(settings, 5, 25)
    for step in (17, 3, 24, 0, 19, 20):
        rate.set(step)
        assert rate.now() == expected[step]


def network_with_all_layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def count_decayed(settings: Optimization) -> int:
    """How many parameter values have weight decay."""
    groups = create_optimizer(network_with_all_layers(), settings).param_groups
    assert {group["weight_decay"] for group in groups} <= {0.0, 0.3}
    assert sum(p.numel() for group in groups for p in group["params"]) == 18 + 2 + 4 + 24 + 3
    return sum(p.numel() for group in groups for p in group["params"] if group["weight_decay"] == 0.3)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop-tf", "adamw"])
def test_weight_decay_is_on_all_parameters_or_on_weights(optimizer: str) -> None:
    settings = Optimization(optimizer=optimizer, weight_decay=0.3)
    assert count_decayed(replace(settings, decay_on="all")) == 18 + 2 + 4 + 24 + 3
    assert count_decayed(replace(settings, decay_on="weights")) == 18 + 24


def test_float16_gradients_are_unscaled_before_clipping() -> None:
    """At a scale of 2^16, a gradient of norm 2 would be clipped to nearly 0. A step that overflows is left out."""
    network, settings = Point(), Optimization(epochs=1, clip_norm=2.5, learning_rate=0.001)
    state = replace(create_state(network, settings, 9), scaler=create_scaler(CPU, torch.float16))
    plain, alone = Point(), Optimization(epochs=1, clip_norm=2.5, learning_rate=0.001)
    other = create_state(plain, alone, 9)
    state.scaler.scale(network.loss()).backward()
    plain.loss().backward()
    optimizer_step(state, 2.5)
    optimizer_step(other, 2.5)
    np.testing.assert_allclose(network.values(), plain.values(), rtol=1e-12)
    before = network.values().copy()
    state.scaler.scale(network.loss() * math.inf).backward()
    optimizer_step(state, 2.5)
    np.testing.assert_array_equal(network.values(), before)


PRECISIONS = [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)]


@pytest.mark.parametrize(("name", "dtype"), PRECISIONS)
def test_a_named_precision_is_used(name: str, dtype: torch.dtype) -> None:
    assert find_precision(Optimization(precision=name), CPU) is dtype
    with autocast(CPU, dtype):
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype is dtype
    assert create_scaler(CPU, dtype).is_enabled() == (name == "float16")


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False, "avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_precision_is_bfloat16_where_the_cpu_supports_it(
    capabilities: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert find_precision(Optimization(), CPU) is dtype


def test_auto_device_is_a_gpu_if_there_is_one() -> None:
    assert find_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert find_device("cpu") == CPU


@pytest.mark.parametrize("name", ["gpu", "", "cuda:99", "cpu:x", "mps:7"])
def test_an_unavailable_device_is_named_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match=f"^run.device {name} cannot be used: [^\n]+$"):
        find_device(name)


def test_cuda_graphs_need_a_gpu_and_whole_networks() -> None:
    with pytest.raises(InputError, match=r"run\.cuda_graphs needs a GPU, but run\.device is cpu"):
        check_cuda_graphs(Run(cuda_graphs=True), torch.device("cpu"))
    with pytest.raises(InputError, match=r"run\.cuda_graphs cannot be used with run\.shard"):
        check_cuda_graphs(Run(cuda_graphs=True, shard=True), torch.device("cuda"))
    check_cuda_graphs(Run(cuda_graphs=True), torch.device("cuda"))


def test_layer_decay_scales_the_rate_of_each_layer() -> None:
    """A transformer of two blocks: the head has the whole rate, each layer below half of that of the one above."""
    network = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=3)
    settings = Optimization(learning_rate=0.1, layer_decay=0.5, decay_on="weights", optimizer="adamw")
    optimizer = create_optimizer(network, settings)
    rate = LearningRateSchedule(optimizer, settings, steps_per_epoch=2)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, expected in (("head.weight", 0.1), ("blocks.1.attn.qkv.weight", 0.05),
                           ("blocks.0.mlp.fc1.bias", 0.025), ("patch_embed.proj.weight", 0.0125)):  # fmt: skip
        assert rates[name] == pytest.approx(expected), name
    assert rate.now() == pytest.approx(0.1)
    rate.set(settings.epochs)  # half of the steps
    assert rate.now() == pytest.approx(0.05)
    assert min(group["lr"] for group in optimizer.param_groups) == pytest.approx(0.00625)
