"""What changes while training: weights, optimiser, schedule and position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3
from torch import nn

from kdaug.training.optim import LearningRate


class Diverged(Exception):
    """Training has lost its way: a loss, weight or statistic is no longer finite. The message says which, and when."""


@dataclass
class TrainState:
    """What changes while training. `step` counts the optimisation steps done; `rate` follows from it.

    network: the student, whose weights these are. forward: what to call in training, the network itself or what
    averages the gradients of several processes around it. average: the moving average of its weights, or None. seconds:
    what these steps took, evaluations included, over all stretches of a run that was stopped and continued.
    """

    network: nn.Module
    forward: nn.Module
    optimizer: torch.optim.Optimizer
    rate: LearningRate
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None = None
    step: int = 0
    best_top1_error: float | None = None
    seconds: float = 0.0

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated and kept: the averaged one if there is one."""
        return self.ema.module if self.ema is not None else self.network
