"""Optimiser, schedule and number format, all torch's own."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from kdaug import config
from kdaug.errors import InputError


def create_optimizer(network: nn.Module, settings: config.Optimization) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay on all parameters, batch-norm included, as the CIFAR codes do."""
    return torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=True,
        weight_decay=settings.weight_decay,
    )


def create_schedule(optimizer: torch.optim.Optimizer, steps: int) -> CosineAnnealingLR:
    """Cosine from the learning rate to zero over `steps`, updated every step, no warm-up."""
    return CosineAnnealingLR(optimizer, T_max=steps)


def find_device(name: str) -> torch.device:
    """The device called `name`; auto is the first GPU if there is one. InputError if it cannot be had."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"run.device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def available_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_precision(settings: config.Optimization, device: torch.device) -> torch.dtype:
    """The autocast type. auto: bfloat16 on GPUs and on processors that multiply it natively, else float32."""
    if settings.precision != "auto":
        return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Autocast to `dtype`; float32 is no autocast."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
