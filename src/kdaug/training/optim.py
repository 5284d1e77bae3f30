"""Optimiser, schedule, averaged weights and number format: timm's and torch's, chosen by a recipe's words."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from kdaug import config

_TIMM_NAMES = {"sgd": "sgd", "rmsprop-tf": "rmsproptf", "adamw": "adamw"}


def create_optimizer(network: nn.Module, settings: config.Optimization) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, RMSProp as TensorFlow's (smoothing 0.9, epsilon 0.001 within the root), or AdamW.

    With decay_on "weights", parameters of one dimension (biases, norms), and those that the network itself excepts,
    do not decay; "all" means all, batch-norm included, as the CIFAR codes do.
    """
    own: dict[str, dict[str, Any]] = {
        "sgd": {"momentum": settings.momentum},
        "rmsprop-tf": {"momentum": settings.momentum, "alpha": 0.9, "eps": 1e-3},
        "adamw": {"betas": (settings.momentum, 0.999)},
    }
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        network,
        _TIMM_NAMES[settings.optimizer],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        filter_bias_and_bn=settings.decay_on == "weights",
        **own[settings.optimizer],
    )
    return optimizer


class LearningRate:
    """The learning rate as a function of the steps done: warm-up, the schedule, then that of the clean epochs."""

    def __init__(self, optimizer: torch.optim.Optimizer, settings: config.Optimization, steps_per_epoch: int) -> None:
        self._optimizer = optimizer
        self._clean_from = settings.epochs * steps_per_epoch
        self._main = _schedule(optimizer, settings, steps_per_epoch)
        clean_steps = settings.clean_epochs * steps_per_epoch
        # timm scales each group from the "initial_lr" that the optimiser was made with
        begin = settings.clean_learning_rate or settings.learning_rate / 10
        self._clean = CosineLRScheduler(optimizer, max(clean_steps, 2), t_in_epochs=False)
        self._clean.base_values = [begin for _ in optimizer.param_groups]
        self.set(0)

    def set(self, step: int) -> None:
        """The rate for the step that follows `step` finished ones."""
        if step < self._clean_from:
            self._main.step_update(step)
        else:
            self._clean.step_update(step - self._clean_from)

    def now(self) -> float:
        """The rate in force."""
        return float(self._optimizer.param_groups[0]["lr"])


def _schedule(optimizer: torch.optim.Optimizer, settings: config.Optimization, steps_per_epoch: int) -> Scheduler:
    """timm's schedule for the epochs under the policy, counted in steps; the warm-up is a part of it, not before it."""
    common: dict[str, Any] = {
        "warmup_t": round(settings.warmup_epochs * steps_per_epoch), "warmup_prefix": False, "t_in_epochs": False,
    }  # fmt: skip
    if settings.schedule == "cosine":
        # of a single step timm says that its rate will not change: it need not
        return CosineLRScheduler(optimizer, max(settings.epochs * steps_per_epoch, 2), **common)
    if settings.schedule == "staircase":
        stair = settings.decay_epochs * steps_per_epoch
        return StepLRScheduler(optimizer, stair, settings.decay_rate, **common)
    at = [round(epoch * steps_per_epoch) + 1 for epoch in settings.milestones]  # timm lowers it at m - 1
    return MultiStepLRScheduler(optimizer, at, settings.decay_rate, **common)


def create_ema(network: nn.Module, settings: config.Optimization, sharded: bool = False) -> ModelEmaV3 | None:
    """The exponential moving average of weights and statistics, as TensorFlow's: the first steps count for more.

    sharded: whether the network will be spread over processes, whose tensors torch averages only one by one.

    `average.update(network, step)`, with step one more than the steps done, takes decay min(ema_decay, s / (s + 9)), s
    the steps done: TensorFlow's (1 + n) / (10 + n) with its n counted from zero.
    """
    if settings.ema_decay is None:
        return None
    average = ModelEmaV3(
        network, settings.ema_decay, use_warmup=True, warmup_gamma=9, warmup_power=1, foreach=not sharded
    )
    average.module.requires_grad_(False)
    return average


def create_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """Keeps float16's gradients from vanishing; for other types it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
