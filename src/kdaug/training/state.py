"""What changes while training: weights, optimizer, learning rate and position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.utils import ModelEmaV3
from torch import nn

from kdaug.device import compile_if_set
from kdaug.training.context import TrainContext, create_student, example_input
from kdaug.training.optim import LearningRateSchedule, create_ema, create_optimizer, create_scaler
from kdaug.training.parallel import place_network, wrap_ddp


class Diverged(Exception):
    """Training has diverged: a loss, weight or batch-norm statistic is no longer finite. The message says which."""


@dataclass
class TrainState:
    """What changes while training. `step` counts finished steps; the learning rate follows from it.

    network: the student. train_model: what to call in training: the network itself, or DDP around it. ema: the moving
    average of its weights, or None. seconds: training time so far, with evaluations, also from before a resume.
    """

    network: nn.Module
    train_model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRateSchedule
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None = None
    step: int = 0
    best_top1_error: float | None = None
    seconds: float = 0.0

    @property
    def eval_model(self) -> nn.Module:
        """The network that is evaluated and saved: the moving average if there is one."""
        return self.ema.module if self.ema is not None else self.network


def init_state(context: TrainContext) -> TrainState:
    """The state before the first step: the student with initial weights on its device, its optimizer and the rest."""
    settings, run, device = context.recipe.optimization, context.recipe.run, context.device
    network = create_student(context)
    ema = create_ema(network, settings, run.shard)
    if ema is not None:
        ema.module = place_network(ema.module, run.shard, context.dist, device)
    network = place_network(network, run.shard, context.dist, device)
    optimizer = create_optimizer(network, settings)
    learning_rate = LearningRateSchedule(optimizer, settings, context.steps_per_epoch)
    compile_if_set(network, run)
    train_model = wrap_ddp(network, example_input(context), context.dist)
    return TrainState(network, train_model, optimizer, learning_rate, create_scaler(device, context.precision), ema)
