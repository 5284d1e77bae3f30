"""Small networks, registered with timm by function name, so that recipes can name them."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import Tensor, nn

from kdaug.networks.noise import ShakeDrop, ShakeShake
from kdaug.networks.wide_resnet import WideResNet


class SoftmaxRegression(nn.Module):
    """Logits W x + b of gray 28 x 28 images, with dropout on x."""

    def __init__(self, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout, self.fc = nn.Dropout(dropout), nn.Linear(28 * 28, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(x.flatten(1)))


class SmallConvNet(nn.Sequential):
    """Convolutions, batch norms with running statistics, dropout and pooling, like real networks."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__(
            *(nn.Conv2d(in_chans, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1)),
            *(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes)),
        )


class ShakenConvNet(nn.Module):
    """Two branches mixed by Shake-Shake, the result scaled by ShakeDrop."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.left, self.right = (nn.Conv2d(in_chans, 4, 3, 3) for _ in range(2))
        self.shake, self.drop, self.fc = ShakeShake(), ShakeDrop(0.5), nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.shake(self.left(x), self.right(x))).relu().mean((2, 3)))


STUDENTS = (SoftmaxRegression, SmallConvNet, ShakenConvNet, WideResNet)
"""The classes of all students that tests train step by step."""


@register_model
def softmax_regression(num_classes: int = 10, **_: Any) -> nn.Module:
    return SoftmaxRegression(num_classes, dropout=0.0)


@register_model
def softmax_regression_dropout(num_classes: int = 10, **_: Any) -> nn.Module:
    return SoftmaxRegression(num_classes, dropout=0.3)


@register_model
def softmax_regression_strict(
    num_classes: int = 10, in_chans: int = 3, pretrained: bool = False, pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Any = None, cache_dir: Any = None,
) -> nn.Module:  # fmt: skip
    """Accepts no drop path, no dropout and no gradient checkpointing."""
    return SoftmaxRegression(num_classes, dropout=0.0)


@register_model
def small_convnet(num_classes: int = 10, in_chans: int = 3, **_: Any) -> nn.Module:
    return SmallConvNet(num_classes, in_chans)


@register_model
def recording_convnet(
    num_classes: int = 10, in_chans: int = 3, drop_path_rate: float = 0.0, drop_rate: float = 0.0, **_: Any
) -> nn.Module:
    """SmallConvNet that records its drop rates and whether gradient checkpointing is on."""
    network = SmallConvNet(num_classes, in_chans)
    network.rates, network.checkpointing = (drop_path_rate, drop_rate), False
    network.set_grad_checkpointing = lambda on: setattr(network, "checkpointing", on)
    return network


@register_model
def shaken_convnet(num_classes: int = 10, in_chans: int = 3, **_: Any) -> nn.Module:
    return ShakenConvNet(num_classes, in_chans)
