"""The base class of kdaug's networks for images of about 32 pixels: stem, stages, norm, head, and timm's interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from timm.layers.classifier import create_classifier
from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

_INPUT = {"input_size": (3, 32, 32), "pool_size": (8, 8), "num_classes": 1000, "classifier": "fc"}


class StagedNetwork(nn.Module):
    """Takes [N,in_chans,H,W] with any H and W. The arguments from in_chans on and the methods are timm's.

    stages: (blocks, output channels) of each; all but the first halve height and width. norm: applied before pooling.
    first_conv: the name of the first convolution, which timm adapts to other numbers of channels.
    """

    first_conv = "stem.0"

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

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """(features, outputs of the stages at `indices`), or with `intermediates_only` the outputs alone.

        indices: the last n stages for an integer n, None for all. norm: apply the final norm to the output of the last
        stage. stop_early: leave out the stages after the last of `indices`; the features are then that stage's output.
        Raises ValueError for another output_fmt than NCHW.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be NCHW, not {output_fmt}")
        take, last_taken = feature_take_indices(len(self.stages), indices)
        final, intermediates = len(self.feature_info) - 1, []
        x = self.stem(x)
        for index, stage in enumerate(self.stages[: last_taken + 1] if stop_early else self.stages):
            x = checkpoint_seq(stage, x) if self.grad_checkpointing else stage(x)
            if index in take:
                intermediates.append(self.norm(x) if norm and index == final else x)
        if intermediates_only:
            return intermediates
        return self.norm(x) if index == final else x, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes the stages after the last one of `indices`, and the norm and the head if asked; returns the indices.

        Without the last stage, norm and head go in any case: they are for its number of channels.
        """
        take, last_taken = feature_take_indices(len(self.stages), indices)
        is_shortened = last_taken + 1 < len(self.stages)
        self.stages = self.stages[: last_taken + 1]
        if prune_norm or is_shortened:
            self.norm = nn.Identity()
        if is_shortened:
            self.num_features = self.feature_info[last_taken]["num_chs"]
        if prune_head or is_shortened:
            self.reset_classifier(0, "")
        return take

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
        default = {**_INPUT, "architecture": name, "first_conv": network_class.first_conv}
        options["pretrained_cfg"] = options.get("pretrained_cfg") or default
        features = {"out_indices": (0, 1, 2), "flatten_sequential": True}
        return build_model_with_cfg(network_class, name, pretrained, feature_cfg=features, **settings, **options)

    create.__name__, create.__doc__, create.__module__ = name, description, network_class.__module__
    register_model(create)
