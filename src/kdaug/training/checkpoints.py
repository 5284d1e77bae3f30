"""Checkpoints: everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from kdaug.errors import InputError

KEPT = 2
_WEIGHTS, _STATE, _SUMS = "weights.safetensors", "state.pt", "sha256.json"


@dataclass
class TrainingState:
    """What changes while training. `step` counts the optimisation steps done."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    best_top1_error: float | None = None


def require_finite(state: TrainingState) -> None:
    """InputError if a weight or statistic of the network is no longer finite: such a state is not to be kept."""
    for name, value in state.network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(
                f"{name} of the network is not finite after step {state.step}; training stopped, checkpoints before it "
                "are kept. Lower optimization.learning_rate or supervision.weight"
            )


def save_checkpoint(state: TrainingState, folder: Path) -> Path:
    """Writes folder/step-NNNNNNNN whole or not at all (files, then their sums, fsync, rename); keeps the last two."""
    final = folder / f"step-{state.step:08d}"
    unfinished = folder / f".{final.name}.part"
    for abandoned in folder.glob(".step-*.part"):
        shutil.rmtree(abandoned)
    unfinished.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in state.network.state_dict().items()}
    _write(unfinished / _WEIGHTS, safetensors.torch.save(weights))
    torch.save(_state_dict(state), unfinished / _STATE)
    sums = {name: _sum_of(unfinished / name) for name in (_WEIGHTS, _STATE)}
    _write(unfinished / _SUMS, json.dumps(sums).encode())
    _sync(unfinished / _STATE)
    _sync(unfinished)
    if final.exists():
        shutil.rmtree(final)
    unfinished.rename(final)
    _sync(folder)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_newest_checkpoint(state: TrainingState, folder: Path, report: Callable[[str], None]) -> bool:
    """Fills `state` from the newest sound checkpoint in `folder`; False if there is none.

    A damaged one is reported and passed over. Nothing loaded can run code.
    """
    for checkpoint in reversed(_all(folder)):
        try:
            sums = json.loads((checkpoint / _SUMS).read_text())
            damaged = [name for name in (_WEIGHTS, _STATE) if _sum_of(checkpoint / name) != sums[name]]
            if damaged:
                raise ValueError(f"{damaged[0]} differs from its checksum")
            weights = safetensors.torch.load_file(checkpoint / _WEIGHTS)
            rest = torch.load(checkpoint / _STATE, weights_only=True)
        except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError, pickle.UnpicklingError) as error:
            report(f"checkpoint {checkpoint} is damaged ({error}); trying the one before")
            continue
        state.network.load_state_dict(weights)
        _restore(state, rest)
        return True
    return False


def _state_dict(state: TrainingState) -> dict[str, Any]:
    return {
        "step": state.step,
        "best_top1_error": state.best_top1_error,
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict(),
        "cpu_generator": torch.get_rng_state(),
        "cuda_generators": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _restore(state: TrainingState, saved: dict[str, Any]) -> None:
    state.step, state.best_top1_error = saved["step"], saved["best_top1_error"]
    state.optimizer.load_state_dict(saved["optimizer"])
    state.schedule.load_state_dict(saved["schedule"])
    torch.set_rng_state(saved["cpu_generator"])
    if saved["cuda_generators"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(saved["cuda_generators"])


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))


def _sum_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
