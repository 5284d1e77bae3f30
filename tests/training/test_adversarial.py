"""AdvProp: the attack raises the loss within its bounds, and uses the auxiliary batch norms alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.runs import assert_same_run, read_lines
from support.steps import before_each_step
from torch import nn
from torch.nn import functional

from kdaug import InputError
from kdaug.config import Adversary, Recipe
from kdaug.networks import InputFormat, create_network, load_network, read_weights
from kdaug.training import train
from kdaug.training.adversarial import add_auxiliary_norms, drop_auxiliary_norms, pgd_attack

FORMAT = InputFormat((0.5, 0.4, 0.3), (0.2, 0.25, 0.3), None)
LABELS = torch.arange(12) % 5


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """uint8 [12,16,16,3], some pixels at the ends of the range."""
    torch.manual_seed(3)
    return (torch.randn(12, 16, 16, 3) * 90 + 128).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def network(images: torch.Tensor) -> nn.Module:
    """A Wide-ResNet with auxiliary norms, trained for a few steps on LABELS of original and attacked `images`."""
    torch.manual_seed(0)
    network = add_auxiliary_norms(create_network("wide_resnet10_1", 5, 3), "wide_resnet10_1")
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9)
    original = FORMAT.normalize(images)
    for _ in range(20):
        attacked = pgd_attack(network, original, LABELS, Adversary(steps=1, epsilon=4), FORMAT)
        network.train()
        functional.cross_entropy(network(torch.cat([original, attacked])), LABELS.repeat(2)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return network


def auxiliary_logits(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Logits in evaluation mode of a network whose batch norms are the auxiliary ones."""
    plain = create_network("wide_resnet10_1", 5, 3)
    state = network.state_dict()
    plain.load_state_dict(
        {key: state.get(_auxiliary_key(key), value) for key, value in state.items() if "aux_bn" not in key}
    )
    return plain.eval()(images)


def _auxiliary_key(key: str) -> str:
    module, _, tensor = key.rpartition(".")
    return f"{module}.aux_bn.0.{tensor}"


@settings(max_examples=30)
@given(st.integers(1, 6), st.floats(0.5, 16), st.floats(0.3, 4), st.integers(0, 2**31))
def test_attacked_pixels_stay_within_epsilon_and_range(
    network: nn.Module, images: torch.Tensor, steps: int, epsilon: float, step_size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    original = FORMAT.normalize(images)
    attacked = pgd_attack(network, original, LABELS, Adversary(steps, epsilon, step_size), FORMAT)
    mean, std = (torch.tensor(values)[:, None, None] for values in (FORMAT.mean, FORMAT.std))
    before, after = (255 * (x * std + mean) for x in (original, attacked))
    assert (after - before).abs().max() <= epsilon + 1e-3
    assert after.min() >= -1e-3
    assert after.max() <= 255 + 1e-3
    assert not attacked.requires_grad


def test_more_attack_steps_raise_the_loss_further(network: nn.Module, images: torch.Tensor) -> None:
    original, losses = FORMAT.normalize(images), []
    for steps in (1, 3, 10):
        torch.manual_seed(0)
        attacked = pgd_attack(network, original, LABELS, Adversary(steps, 8, 2), FORMAT)
        losses.append(functional.cross_entropy(auxiliary_logits(network, attacked), LABELS).item())
    torch.manual_seed(0)
    noise = (original + 8 / 255 * (2 * torch.rand_like(original) - 1) / 0.25).clone()
    assert functional.cross_entropy(auxiliary_logits(network, noise), LABELS) < losses[1]
    assert functional.cross_entropy(auxiliary_logits(network, original), LABELS) < losses[0] < losses[1] < losses[2]


def test_one_attack_step_follows_the_gradient_to_a_wrong_class(network: nn.Module, images: torch.Tensor) -> None:
    """The sign of the gradient of an independent network; epsilon is above the step, so that no bound has an effect."""
    original = torch.full_like(FORMAT.normalize(images), 0.1)  # far from 0 and 255
    torch.manual_seed(5)
    attacked = pgd_attack(network, original, LABELS, Adversary(1, 2, 1), FORMAT)
    torch.manual_seed(5)
    unit = 1 / (255 * torch.tensor(FORMAT.std)[:, None, None])
    start = (original - 2 * unit + torch.rand_like(original) * 4 * unit).requires_grad_()
    targets = (LABELS + torch.randint_like(LABELS, 1, 5)) % 5
    assert (targets != LABELS).all()
    functional.cross_entropy(auxiliary_logits(network, start), targets, reduction="sum").backward()
    expected = (start.detach() - unit * start.grad.sign()).clamp(original - 2 * unit, original + 2 * unit)
    same = (attacked - expected).abs() < 1e-4
    assert same.double().mean() > 0.999  # where the gradient is 0 up to rounding, its sign is arbitrary


def test_an_attack_does_not_change_the_network(network: nn.Module, images: torch.Tensor) -> None:
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    pgd_attack(network, FORMAT.normalize(images), LABELS, Adversary(steps=2), FORMAT)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_each_half_of_a_batch_updates_its_own_statistics(images: torch.Tensor) -> None:
    network = add_auxiliary_norms(create_network("wide_resnet10_1", 5, 3), "wide_resnet10_1").train()
    original = FORMAT.normalize(images)
    network(torch.cat([original, original + 1]))
    plain = create_network("wide_resnet10_1", 5, 3).train()
    plain.load_state_dict(drop_auxiliary_norms(network.state_dict()))
    first = network.stages[0][0].bn1
    assert not torch.equal(first.running_mean, first.aux_bn[0].running_mean)
    one_batch = nn.BatchNorm2d(16).train()
    one_batch(network.stem(original))
    torch.testing.assert_close(first.running_mean, one_batch.running_mean)
    other_batch = nn.BatchNorm2d(16).train()
    other_batch(network.stem(original + 1))
    torch.testing.assert_close(first.aux_bn[0].running_mean, other_batch.running_mean)


@pytest.mark.parametrize("name", ["wide_resnet10_1", "pyramidnet29_a48", "efficientnet_b0"])
def test_evaluation_needs_no_auxiliary_norms(name: str) -> None:
    torch.manual_seed(0)
    split, images = add_auxiliary_norms(create_network(name, 5, 3), name), torch.randn(2, 3, 32, 32)
    split.train()(torch.randn(8, 3, 32, 32))
    plain = create_network(name, 5, 3)
    plain.load_state_dict(drop_auxiliary_norms(split.state_dict()))
    torch.testing.assert_close(plain.eval()(images), split.eval()(images))


def test_a_network_without_batch_norms_is_refused() -> None:
    with pytest.raises(InputError, match="network vit_tiny_patch16_224 has no batch norms"):
        add_auxiliary_norms(timm.create_model("vit_tiny_patch16_224"), "vit_tiny_patch16_224")


def test_a_run_logs_both_losses_and_saves_plain_weights(tiny_recipe: Callable[..., Recipe]) -> None:
    run = train(tiny_recipe({"student.name": "small_convnet", "adversary.steps": 1})).directory
    for line in read_lines(run, "step"):
        assert line["loss"] == pytest.approx(line["cross_entropy"] + line["adversarial"], rel=1e-5)
        assert line["adversarial"] > 0
    tensors, _ = read_weights(run / "last.safetensors")
    assert not [name for name in tensors if "aux" in name]
    load_network(run / "last.safetensors")


def test_a_run_with_adversary_resumes_bit_for_bit(tiny_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    settings = {"student.name": "small_convnet", "adversary.steps": 2, "run.resume": True}
    uninterrupted = train(tiny_recipe({**settings, "run.dir": str(tmp_path / "uninterrupted")})).directory
    recipe = tiny_recipe({**settings, "run.checkpoint_steps": 1})

    class Stop(Exception):
        pass

    def stop_in_step_6(step: int, *_: object) -> None:
        if step == 6:
            raise Stop

    with pytest.raises(Stop), before_each_step(stop_in_step_6):
        train(recipe)
    torch.manual_seed(99)
    assert_same_run(train(recipe).directory, uninterrupted)
