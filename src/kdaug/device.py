"""Device, precision and CPU cores of a run."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

import torch
from torch import nn

from kdaug import config
from kdaug.errors import InputError


def find_device(name: str, local_rank: int = 0) -> torch.device:
    """The device `name`; auto: cuda or else cpu; cuda: the GPU of local_rank. InputError if it is not available."""
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
    """Makes cuDNN and cuBLAS deterministic, which bit-exact resuming needs. Training may be a few percent slower."""
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False


def check_cuda_graphs(run: config.Run, device: torch.device) -> None:
    """Raises InputError if run.cuda_graphs is set, but cannot be used on `device` or together with run.shard."""
    if run.cuda_graphs and device.type != "cuda":
        raise InputError(f"run.cuda_graphs needs a GPU, but run.device is {device.type}")
    if run.cuda_graphs and run.shard:
        raise InputError("run.cuda_graphs cannot be used with run.shard")


def compile_if_set(network: nn.Module, run: config.Run) -> None:
    """Compiles `network` in place if run.compile or run.cuda_graphs is set."""
    if run.cuda_graphs:
        network.compile(mode="reduce-overhead")
    elif run.compile:
        network.compile()


def available_cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_precision(settings: config.Optimization, device: torch.device) -> torch.dtype:
    """The dtype for autocast. auto: bfloat16 on GPUs and CPUs with native bfloat16 products, else float32."""
    if settings.precision != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[settings.precision]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """torch.autocast to `dtype`; disabled for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
