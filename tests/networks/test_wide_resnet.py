"""Wide-ResNet: published sizes, a reference forward pass, initialization."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from kdaug.networks import count_parameters, create_network
from kdaug.networks.wide_resnet import DEPTHS, WIDTHS, WideResNet


def closed_form(depth: int, width: int, classes: int, channels: int) -> int:
    """Parameters of stem, blocks (two BN, two 3x3, a 1x1 shortcut where channels change), last BN and classifier."""
    total, inputs = 9 * channels * 16, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += 2 * inputs + 9 * inputs * outputs + 2 * outputs + 9 * outputs * outputs
            total += inputs * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 2 * inputs + inputs * classes + classes


@pytest.mark.parametrize(
    ("name", "classes", "published"), [("wide_resnet28_10", 10, 36_479_194), ("wide_resnet28_10", 100, 36_536_884)]
)
def test_parameters_are_as_published(name: str, classes: int, published: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create_network(name, classes, 3)) == published


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("width", WIDTHS)
def test_parameters_of_every_registered_size(depth: int, width: int) -> None:
    for classes, channels in ((10, 3), (100, 1)):
        with torch.device("meta"):
            network = create_network(f"wide_resnet{depth}_{width}", classes, channels)
        assert count_parameters(network) == closed_form(depth, width, classes, channels)


@pytest.mark.parametrize(("depth", "allowed"), [(10, True), (16, True), (4, False), (12, False), (18, False)])
def test_depth_is_6n_plus_4(depth: int, allowed: bool) -> None:
    if allowed:
        assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in WideResNet(depth, 1).modules()) == (
            depth - 3
        )
    else:
        with pytest.raises(ValueError, match=f"6n.4 with n at least 1, not {depth}"):
            WideResNet(depth, 1)


def reference(x: Tensor, state: dict[str, Tensor]) -> Tensor:
    """The forward pass of WRN-10-1 in evaluation mode: three stages of one pre-activation block."""

    def activated(x: Tensor, name: str) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0)

    x = functional.conv2d(x, state["stem.weight"], padding=1)
    for stage, stride in enumerate((1, 2, 2)):
        block = f"stages.{stage}.0"
        active = activated(x, f"{block}.bn1")
        out = functional.conv2d(active, state[f"{block}.conv1.weight"], stride=stride, padding=1)
        out = functional.conv2d(activated(out, f"{block}.bn2"), state[f"{block}.conv2.weight"], padding=1)
        shortcut = x if stage == 0 else functional.conv2d(active, state[f"{block}.shortcut.weight"], stride=stride)
        x = shortcut + out
    pooled = activated(x, "norm").flatten(2).mean(2)
    return pooled @ state["fc.weight"].T + state["fc.bias"]


def test_forward_equals_the_reference() -> None:
    torch.manual_seed(0)
    network = create_network("wide_resnet10_1", 5, 3).double()
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.1, 0.9)
    network.eval()
    images = torch.randn(3, 3, 13, 10, dtype=torch.float64)
    torch.testing.assert_close(network(images), reference(images, network.state_dict()))


def test_initial_weights_have_the_documented_distributions() -> None:
    torch.manual_seed(0)
    network = create_network("wide_resnet16_4", 100, 3)
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            weight = module.weight.detach()
            fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
            assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03), name
            assert abs(weight.mean()) < 4 * weight.std() / weight.numel() ** 0.5
            fourth = (weight / weight.std()).pow(4).mean().item()
            assert fourth == pytest.approx(3, abs=0.3), "kurtosis of a normal distribution"
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    weight = network.fc.weight.detach() * 10  # 1/sqrt(100)
    assert 0.99 < weight.abs().max() <= 1
    assert weight.std().item() == pytest.approx(3**-0.5, rel=0.03)
    assert (network.fc.bias == 0).all()


def test_initial_weights_of_a_seed_do_not_change() -> None:
    """Drawn once when torch creates each layer, then again by our initialization. Stored runs rely on this order."""
    torch.manual_seed(0)
    network = create_network("wide_resnet10_1", 5, 3)
    torch.manual_seed(0)
    shapes = [(3, 16, 3), (16, 16, 3), (16, 16, 3), (16, 32, 3), (32, 32, 3), (16, 32, 1), (32, 64, 3), (64, 64, 3)]
    layers = [nn.Conv2d(inputs, outputs, side, bias=False) for inputs, outputs, side in (*shapes, (32, 64, 1))]
    fc = nn.Linear(64, 5)
    for layer in layers:
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.uniform_(fc.weight, -(5**-0.5), 5**-0.5)
    drawn = {name: value for name, value in network.state_dict().items() if value.ndim > 1}
    assert list(drawn) == [
        "stem.weight", "stages.0.0.conv1.weight", "stages.0.0.conv2.weight",
        "stages.1.0.conv1.weight", "stages.1.0.conv2.weight", "stages.1.0.shortcut.weight",
        "stages.2.0.conv1.weight", "stages.2.0.conv2.weight", "stages.2.0.shortcut.weight", "fc.weight",
    ]  # fmt: skip
    for value, layer in zip(drawn.values(), [*layers, fc], strict=True):
        assert torch.equal(value, layer.weight)


def test_dropout_is_active_in_training_only() -> None:
    network = timm.create_model("wide_resnet10_1", num_classes=4, drop_rate=0.5)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))
