"""PyramidNet (Han et al., arXiv 1610.02915) with bottlenecks and ShakeDrop (arXiv 1802.02375), in timm's registry."""

from __future__ import annotations

import math
from typing import Any

from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from kdaug.networks.noise import ShakeDrop
from kdaug.networks.staged import StagedNetwork, register

EXPANSION = 4
LAST_KEEP = 0.5
SIZES = ((29, 48), (56, 84), (110, 200), (272, 200))
"""(depth, alpha)"""


class PyramidBlock(nn.Module):
    """BN-conv1x1-BN-ReLU-conv3x3-BN-ReLU-conv1x1-BN, and a shortcut of 2x2 average pooling and zero-padded channels."""

    def __init__(self, inputs: int, width: int, stride: int, keep: float) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.residual = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.drop = ShakeDrop(keep) if keep < 1 else nn.Identity()
        self.pool = nn.AvgPool2d(2, ceil_mode=True) if stride == 2 else nn.Identity()
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        shortcut = nn.functional.pad(self.pool(x), (0, 0, 0, 0, 0, self.new_channels))
        result: Tensor = shortcut + self.drop(self.residual(x))
        return result


class PyramidNet(StagedNetwork):
    """Three stages of (depth - 2) / 9 blocks. The width grows from 16 to 16 + alpha in equal steps, rounded.

    shakedrop: the l-th of L blocks is kept with probability 1 - l / 2L.
    """

    def __init__(self, depth: int, alpha: int, shakedrop: bool, in_chans: int = 3, **options: Any) -> None:
        per_stage = (depth - 2) // 9
        count = 3 * per_stage
        stages, inputs, index = [], 16, 0
        for stage in range(3):
            blocks = []
            for block in range(per_stage):
                index += 1
                width = math.floor(16 + index * alpha / count + 0.5)
                keep = 1 - (1 - LAST_KEEP) * index / count if shakedrop else 1.0
                blocks.append(PyramidBlock(inputs, width, 2 if stage and not block else 1, keep))
                inputs = EXPANSION * width
            stages.append((blocks, inputs))
        stem = nn.Sequential(nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        super().__init__(stem, stages, BatchNormAct2d(inputs), in_chans, **options)


for _depth, _alpha in SIZES:
    for _shakedrop, _suffix, _ending in ((False, "", "."), (True, "_shakedrop", ", and ShakeDrop.")):
        _description = f"PyramidNet-{_depth} with bottlenecks, alpha {_alpha}{_ending}"
        _settings = {"depth": _depth, "alpha": _alpha, "shakedrop": _shakedrop}
        register(PyramidNet, f"pyramidnet{_depth}_a{_alpha}{_suffix}", _description, **_settings)
