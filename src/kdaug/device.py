"""The device a run computes on: which one, in which number format, with how many CPU cores."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch

from kdaug import config
from kdaug.errors import InputError


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device called `name`; auto and cuda are this process's GPU if there is one. InputError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None and torch.cuda.is_available():
            device = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"run.device {name} cannot be used: {str(error).splitlines()[0]}") from None
    return device


def make_deterministic(device: torch.device) -> None:
    """Has cuDNN and cuBLAS choose algorithms that give the same bits each time, as a resumed run needs.

    They are chosen by rule, not by trying which is the quickest today, and may be some per cent slower.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def available_cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_precision(settings: config.Optimization, device: torch.device) -> torch.dtype:
    """The autocast type. auto: bfloat16 on GPUs and on processors that multiply it natively, else float32."""
    if settings.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[settings.precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Autocast to `dtype`; float32 is no autocast."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
