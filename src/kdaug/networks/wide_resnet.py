"""Wide-ResNet (Zagoruyko and Komodakis, arXiv 1605.07146) for images of about 32 pixels, in timm's registry."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from kdaug.networks.staged import StagedNetwork, register

DEPTHS = (10, 16, 22, 28, 40)
WIDTHS = (1, 2, 4, 8, 10)


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv. If the shape changes, the shortcut is a 1x1 convolution of the first ReLU's output."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.dropout = nn.Dropout(dropout)
        same_shape = inputs == outputs and stride == 1
        self.shortcut = None if same_shape else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(active)
        out = self.conv1(active)
        out = self.conv2(self.dropout(torch.relu(self.bn2(out))))
        result: Tensor = shortcut + out
        return result


class WideResNet(StagedNetwork):
    """Three stages of (depth - 4) / 6 blocks with 16, 32 and 64 x width channels. drop_rate: dropout inside blocks."""

    first_conv = "stem"

    def __init__(self, depth: int, width: int, in_chans: int = 3, drop_rate: float = 0.0, **options: Any) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"the depth of a Wide-ResNet must be 6n+4 with n at least 1, not {depth}")
        stages, inputs = [], 16
        for stage in range(3):
            blocks, outputs = [], 16 * width * 2**stage
            for block in range((depth - 4) // 6):
                blocks.append(PreActivationBlock(inputs, outputs, 2 if stage and not block else 1, drop_rate))
                inputs = outputs
            stages.append((blocks, outputs))
        stem = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        super().__init__(stem, stages, BatchNormAct2d(inputs), in_chans, **options)


for _depth, _width in product(DEPTHS, WIDTHS):
    register(WideResNet, f"wide_resnet{_depth}_{_width}", f"Wide-ResNet-{_depth}-{_width}.", depth=_depth, width=_width)
