"""Optimizer, learning rate schedule, weight averaging and gradient scaling, from timm and torch."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import nn

from kdaug import config


def create_optimizer(network: nn.Module, settings: config.Optimization) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, RMSProp as TensorFlow's (smoothing 0.9, epsilon 0.001 within the root), or AdamW.

    With decay_on "weights", one-dimensional parameters (biases, norms) and those that the network itself excludes are
    not decayed. With "all", everything is, batch norms included, as in the published CIFAR code.
    """
    options: dict[str, dict[str, Any]] = {
        "sgd": {"momentum": settings.momentum},
        "rmsprop-tf": {"momentum": settings.momentum, "alpha": 0.9, "eps": 1e-3},
        "adamw": {"betas": (settings.momentum, 0.999)},
    }
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        network,
        settings.optimizer.replace("-", ""),  # its name in timm
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        filter_bias_and_bn=settings.decay_on == "weights",
        layer_decay=settings.layer_decay,
        **options[settings.optimizer],
    )
    return optimizer


class LearningRateSchedule:
    """The learning rate as a function of finished steps: warm-up, schedule, then that of the clean epochs."""

    def __init__(self, optimizer: torch.optim.Optimizer, settings: config.Optimization, steps_per_epoch: int) -> None:
        self._optimizer = optimizer
        self._clean_from = settings.epochs * steps_per_epoch
        self._main = _schedule(optimizer, settings, steps_per_epoch)
        clean_steps = settings.clean_epochs * steps_per_epoch
        # timm scales each group from the "initial_lr" that the optimizer was made with
        initial = settings.clean_learning_rate or settings.learning_rate / 10
        self._clean = CosineLRScheduler(optimizer, max(clean_steps, 2), t_in_epochs=False)
        self._clean.base_values = [initial for _ in optimizer.param_groups]
        self.set(0)

    def set(self, step: int) -> None:
        """Sets the rate for the step after `step` finished ones."""
        if step < self._clean_from:
            self._main.step_update(step)
        else:
            self._clean.step_update(step - self._clean_from)

    def now(self) -> float:
        """The current learning rate, with layer_decay that of the last layer."""
        return float(max(group["lr"] for group in self._optimizer.param_groups))


def _schedule(optimizer: torch.optim.Optimizer, settings: config.Optimization, steps_per_epoch: int) -> Scheduler:
    """timm's schedule for the main epochs, in steps. The warm-up is part of it, not added before it."""
    common: dict[str, Any] = {
        "warmup_t": round(settings.warmup_epochs * steps_per_epoch), "warmup_prefix": False, "t_in_epochs": False,
    }  # fmt: skip
    if settings.schedule == "cosine":
        # at least 2: timm warns about a schedule of one step, in which the rate cannot change
        return CosineLRScheduler(optimizer, max(settings.epochs * steps_per_epoch, 2), **common)
    if settings.schedule == "staircase":
        return StepLRScheduler(optimizer, settings.decay_epochs * steps_per_epoch, settings.decay_rate, **common)
    # timm lowers the rate at step m - 1
    milestones = [round(epoch * steps_per_epoch) + 1 for epoch in settings.milestones]
    return MultiStepLRScheduler(optimizer, milestones, settings.decay_rate, **common)


def create_ema(network: nn.Module, settings: config.Optimization, sharded: bool = False) -> ModelEmaV3 | None:
    """The exponential moving average of weights and batch-norm statistics, or None if optimization.ema_decay is None.

    The decay of `ema.update(network, s + 1)` after s steps is min(ema_decay, s / (s + 9)): TensorFlow's
    (1 + n) / (10 + n) with n from zero. sharded: whether `network` will be (torch averages such tensors one by one).
    """
    if settings.ema_decay is None:
        return None
    ema = ModelEmaV3(network, settings.ema_decay, use_warmup=True, warmup_gamma=9, warmup_power=1, foreach=not sharded)
    ema.module.requires_grad_(False)
    return ema


def create_scaler(device: torch.device, dtype: torch.dtype) -> torch.amp.GradScaler:
    """A gradient scaler, which is active for float16 only."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
