"""The base class of kdaug's networks for images of about 32 pixels: stem, stages, norm, head, and timm's interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.classifier import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from torch import Tensor, nn

_INPUT = {"input_size": (3, 32, 32), "num_classes": 1000, "classifier": "fc", "first_conv": "stem"}


class StagedNetwork(nn.Module):
    """Takes [N,in_chans,H,W] with any H and W. The arguments from in_chans on and the methods are timm's.

    stages: (blocks, output channels) of each; all but the first halve height and width. norm: applied before pooling.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[tuple[Sequence[nn.Module], int]],
        norm: nn.Module,
        in_chans: int,
        num_classes: int = 1000,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.in_chans, self.num_features, self.grad_checkpointing = in_chans, stages[-1][1], False
        self.stem = stem  # stem, stages and norm in forward order: timm's feature extraction relies on it
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks, _ in stages))
        self.norm = norm
        self.feature_info = [
            {"num_chs": channels, "reduction": 2**stage, "module": f"stages.{stage}"}
            for stage, (_, channels) in enumerate(stages)
        ]
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
        """Replaces the classifier (0 classes: none), and the pooling if `global_pool` is given."""
        self._create_head(num_classes, self.global_pool.pool_type if global_pool is None else global_pool)
        self.fc.to(next(self.stem.parameters())).train(self.training)
        _initialize(self.fc)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Enables gradient checkpointing: blocks are recomputed in the backward pass to save memory."""
        self.grad_checkpointing = enable

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():  # type: ignore[attr-defined]
            x = checkpoint_seq(self.stages, x, flatten=True)
        else:
            x = self.stages(x)
        features: Tensor = self.norm(x)
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of the features x, or with `pre_logits` the classifier's input."""
        pooled: Tensor = self.global_pool(x)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def _initialize(module: nn.Module) -> None:
    """As in AutoAugment's code: convolutions normal, variance 2/(k k outputs); classifier uniform, ±1/sqrt(outputs)."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
        nn.init.zeros_(module.bias)


def register(network_class: type[StagedNetwork], name: str, description: str, **settings: Any) -> None:
    """Registers `network_class` with `settings` in timm as `name`."""

    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        options["pretrained_cfg"] = options.get("pretrained_cfg") or {**_INPUT, "architecture": name}
        features = {"out_indices": (0, 1, 2), "flatten_sequential": True}
        return build_model_with_cfg(network_class, name, pretrained, feature_cfg=features, **settings, **options)

    create.__name__, create.__doc__, create.__module__ = name, description, network_class.__module__
    register_model(create)
