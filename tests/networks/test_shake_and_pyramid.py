"""Shake-Shake and PyramidNet: published sizes, reference forward passes, noise in the right layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdaug.networks import count_parameters, create_network
from kdaug.networks.noise import ShakeDrop, ShakeShake

# From the tables of osmr/imgclsmob, or computed from the layer lists of AutoAugment's code.
SIZES = [
    ("shake_shake26_2x32d", 10, 2_923_162),
    ("shake_shake26_2x96d", 10, 26_192_922),
    ("shake_shake26_2x96d", 100, 26_227_572),
    ("shake_shake26_2x112d", 10, 35_640_442),
    ("pyramidnet272_a200_shakedrop", 10, 26_210_842),
    ("pyramidnet272_a200_shakedrop", 100, 26_288_692),
    ("pyramidnet272_a200", 10, 26_210_842),
]


@pytest.mark.parametrize(("name", "classes", "published"), SIZES)
def test_parameters_are_as_published(name: str, classes: int, published: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create_network(name, classes, 3)) == published


def randomized(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A float64 network in evaluation mode with random weights and running statistics, and its state_dict."""
    torch.manual_seed(0)
    network = create_network(name, 5, 3).double().eval()
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.2)
            if key.endswith("running_var"):
                value.abs_().add_(0.5)
    return network, network.state_dict()


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, scale, shift = (
        state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (variance + 1e-5).sqrt() * scale + shift


def reference_shake_shake(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    x = norm(functional.conv2d(x, state["stem.0.weight"], padding=1), state, "stem.1")
    for stage in range(3):
        for block in range(4):
            name, stride = f"stages.{stage}.{block}", 2 if stage and not block else 1
            active, outs = x.clamp(min=0), []
            for side in ("left", "right"):
                out = functional.conv2d(active, state[f"{name}.{side}.1.weight"], stride=stride, padding=1)
                out = norm(out, state, f"{name}.{side}.2").clamp(min=0)
                out = norm(
                    functional.conv2d(out, state[f"{name}.{side}.4.weight"], padding=1), state, f"{name}.{side}.5"
                )
                outs.append(out)
            shortcut = x
            if f"{name}.shortcut.bn.weight" in state:
                moved = torch.zeros_like(active)
                moved[:, :, :-1, :-1] = active[:, :, 1:, 1:]
                halves = [
                    functional.conv2d(sampled[:, :, ::stride, ::stride], state[f"{name}.shortcut.{side}.weight"])
                    for side, sampled in (("left", active), ("right", moved))
                ]
                shortcut = norm(torch.cat(halves, 1), state, f"{name}.shortcut.bn")
            x = shortcut + (outs[0] + outs[1]) / 2
    return x.clamp(min=0).mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def reference_pyramidnet(x: Tensor, state: dict[str, Tensor], keeps: list[float]) -> Tensor:
    x = norm(functional.conv2d(x, state["stem.0.weight"], padding=1), state, "stem.1")
    per_stage, remaining = len(keeps) // 3, list(keeps)
    for stage in range(3):
        for block in range(per_stage):
            name, stride = f"stages.{stage}.{block}.residual", 2 if stage and not block else 1
            out = functional.conv2d(norm(x, state, f"{name}.0"), state[f"{name}.1.weight"])
            out = functional.conv2d(
                norm(out, state, f"{name}.2").clamp(min=0), state[f"{name}.4.weight"], stride=stride, padding=1
            )
            out = functional.conv2d(norm(out, state, f"{name}.5").clamp(min=0), state[f"{name}.7.weight"])
            out = norm(out, state, f"{name}.8")
            shortcut = torch.zeros_like(out)
            pooled = x.unflatten(2, (-1, stride)).unflatten(4, (-1, stride)).mean((3, 5))
            shortcut[:, : x.shape[1]] = pooled
            x = shortcut + remaining.pop(0) * out
    return norm(x, state, "norm").clamp(min=0).mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def test_shake_shake_equals_the_reference() -> None:
    network, state = randomized("shake_shake26_2x32d")
    images = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(network(images), reference_shake_shake(images, state))


@pytest.mark.parametrize("shakedrop", [False, True])
def test_pyramidnet_equals_the_reference(shakedrop: bool) -> None:
    network, state = randomized("pyramidnet29_a48" + "_shakedrop" * shakedrop)
    images = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    keeps = [1 - block / 18 if shakedrop else 1.0 for block in range(1, 10)]
    torch.testing.assert_close(network(images), reference_pyramidnet(images, state, keeps))


def test_widths_and_keep_probabilities_of_pyramidnet() -> None:
    """ShakeDrop paper, Equation 6: the keep probability falls linearly from 1 to 1/2 at the last of 90 blocks."""
    with torch.device("meta"):
        network = create_network("pyramidnet272_a200_shakedrop", 100, 3)
    keeps = [module.keep for module in network.modules() if isinstance(module, ShakeDrop)]
    assert keeps == pytest.approx([1 - block / 180 for block in range(1, 91)])
    widths = [block.residual[1].out_channels for stage in network.stages for block in stage]
    assert widths[:4] == [18, 20, 23, 25]  # 16 + 20/9 l, rounded
    assert widths[-1] == 216
    assert len(widths) == 90


def test_every_shake_shake_block_has_noise() -> None:
    with torch.device("meta"):
        network = create_network("shake_shake26_2x96d", 100, 3)
    assert sum(isinstance(module, ShakeShake) for module in network.modules()) == 12
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(convolutions) == 1 + 2 * 24  # 26 layers: stem, two per block and branch, classifier


noisy = pytest.mark.parametrize("name", ["shake_shake26_2x16d", "pyramidnet29_a48_shakedrop"])


@noisy
def test_noise_is_from_torchs_generator(name: str) -> None:
    network, images = create_network(name, 4, 3).train(), torch.randn(3, 3, 8, 8)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(network(images).detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


@noisy
def test_gradient_checkpointing_draws_the_same_noise(name: str) -> None:
    network, images = create_network(name, 4, 3).train(), torch.randn(3, 3, 8, 8)
    gradients = []
    for enable in (False, True):
        torch.manual_seed(1)
        network.set_grad_checkpointing(enable)
        network.zero_grad()
        network(images).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    torch.testing.assert_close(gradients[1], gradients[0])


@noisy
def test_gradients_under_autocast_are_similar(name: str) -> None:
    torch.manual_seed(0)
    network, images = create_network(name, 4, 3).train(), torch.randn(16, 3, 16, 16)
    gradients = []
    for enabled in (False, True):
        torch.manual_seed(1)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = network(images)
        assert logits.dtype == (torch.bfloat16 if enabled else torch.float32)
        logits.float().logsumexp(1).sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert functional.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.8


@pytest.mark.slow
@noisy
def test_a_compiled_network_has_equal_output_and_noise(name: str) -> None:
    torch.manual_seed(0)
    network, images = create_network(name, 4, 3), torch.randn(3, 3, 8, 8)
    compiled = torch.compile(network)
    network.eval()
    torch.testing.assert_close(compiled(images), network(images), atol=1e-4, rtol=1e-4)
    network.train()
    first, second = (compiled(images) for _ in range(2))
    assert not torch.equal(first, second)
    second.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())
