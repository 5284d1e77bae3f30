"""Shake-Shake 26 (Gastaldi, arXiv 1705.07485) for images of about 32 pixels, in timm's registry."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kdaug.networks.noise import ShakeShake
from kdaug.networks.staged import StagedNetwork, register

WIDTHS = (16, 32, 64, 96, 112)
_BLOCKS_PER_STAGE = 4


class Shortcut(nn.Module):
    """Two 1x1 convolutions of the strided ReLU output, the second shifted by one pixel right and down, concatenated."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.left = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.right = nn.Conv2d(inputs, outputs // 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(x)
        shifted = nn.functional.pad(active, (-1, 1, -1, 1))
        halves = [half[:, :, :: self.stride, :: self.stride] for half in (active, shifted)]
        normalized: Tensor = self.bn(torch.cat([self.left(halves[0]), self.right(halves[1])], dim=1))
        return normalized


class ShakeBlock(nn.Module):
    """Two branches ReLU-conv-BN-ReLU-conv-BN, mixed by ShakeShake, plus the input (a Shortcut if shapes differ)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.left, self.right = _branch(inputs, outputs, stride), _branch(inputs, outputs, stride)
        self.mix = ShakeShake()
        self.shortcut = nn.Identity() if inputs == outputs and stride == 1 else Shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.shortcut(x) + self.mix(self.left(x), self.right(x))
        return result


def _branch(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),  # not in place: both branches and the shortcut take the same input
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


class ShakeShake26(StagedNetwork):
    """Three stages of four blocks with width, 2 * width and 4 * width channels: 26 layers, 2 branches."""

    def __init__(self, width: int, in_chans: int = 3, **options: Any) -> None:
        stages, inputs = [], 16
        for stage in range(3):
            blocks, outputs = [], width * 2**stage
            for block in range(_BLOCKS_PER_STAGE):
                blocks.append(ShakeBlock(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
            stages.append((blocks, outputs))
        stem = nn.Sequential(nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        super().__init__(stem, stages, nn.ReLU(), in_chans, **options)


for _width in WIDTHS:
    register(
        ShakeShake26,
        f"shake_shake26_2x{_width}d",
        f"Shake-Shake 26 with 2 x {_width} channels, coefficients per image and independent forward and backward.",
        width=_width,
    )
