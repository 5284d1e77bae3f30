"""Wide-ResNet (Zagoruyko and Komodakis, arXiv 1605.07146) for images of about 32 pixels, in timm's registry."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.layers.classifier import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from torch import Tensor, nn

DEPTHS = (10, 16, 22, 28, 40)
WIDTHS = (1, 2, 4, 8, 10)
_INPUT = {"input_size": (3, 32, 32), "num_classes": 1000, "classifier": "fc", "first_conv": "stem"}


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv-BN-ReLU-conv; where the shape changes, the shortcut is a 1x1 convolution of the activated input."""

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
        kept = x if self.shortcut is None else self.shortcut(active)
        out = self.conv1(active)
        out = self.conv2(self.dropout(torch.relu(self.bn2(out))))
        result: Tensor = kept + out
        return result


class WideResNet(nn.Module):
    """Three stages of (depth - 4) / 6 blocks, 16, 32 and 64 x width channels. Input [N,in_chans,H,W], any H and W.

    The options and methods are those of timm's networks, but for drop_rate, which is the dropout within the blocks.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a Wide-ResNet's depth is 6n+4 with n at least 1, not {depth}")
        super().__init__()
        self.in_chans, self.num_features, self.grad_checkpointing = in_chans, 64 * width, False
        blocks_per_stage = (depth - 4) // 6
        self.stem = nn.Conv2d(in_chans, 16, 3, 1, 1, bias=False)
        self.feature_info: list[dict[str, Any]] = []
        stages, inputs = [], 16
        for stage, outputs in enumerate((16 * width, 32 * width, 64 * width)):
            blocks = []
            for block in range(blocks_per_stage):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(PreActivationBlock(inputs, outputs, stride, drop_rate))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": outputs, "reduction": 2**stage, "module": f"stages.{stage}"})
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(inputs)
        self._create_head(num_classes, global_pool)
        self.apply(_initialize)

    def _create_head(self, num_classes: int, global_pool: str) -> None:
        self.num_classes = num_classes
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool_type=global_pool)
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()

    def get_classifier(self) -> nn.Module:
        classifier: nn.Module = self.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier, 0 classes for none; the pooling stays as it is unless given."""
        self._create_head(num_classes, self.global_pool.pool_type if global_pool is None else global_pool)
        self.fc.to(self.stem.weight).train(self.training)
        _initialize(self.fc)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the blocks are computed again in the backward pass, which saves memory."""
        self.grad_checkpointing = enable

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            x = checkpoint_seq(self.stages, x, flatten=True)
        else:
            x = self.stages(x)
        return torch.relu(self.norm(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the features x, or with `pre_logits` what the classifier is given."""
        pooled: Tensor = self.global_pool(x)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _initialize(module: nn.Module) -> None:
    """As AutoAugment's release: convolutions normal, variance 2/(k k outputs); classifier uniform, ±1/sqrt(outputs)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)


def _register(depth: int, width: int) -> None:
    name = f"wide_resnet{depth}_{width}"

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        options["pretrained_cfg"] = options.get("pretrained_cfg") or {**_INPUT, "architecture": name}
        features = {"out_indices": (0, 1, 2), "flatten_sequential": True}
        return build_model_with_cfg(
            WideResNet, name, pretrained, feature_cfg=features, depth=depth, width=width, **options
        )

    create.__name__, create.__module__ = name, __name__
    create.__doc__ = f"Wide-ResNet-{depth}-{width}."
    register_model(create)


for _depth in DEPTHS:
    for _width in WIDTHS:
        _register(_depth, _width)
