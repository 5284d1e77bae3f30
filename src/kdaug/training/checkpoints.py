"""Checkpoints: everything a run needs to go on as if it had never stopped."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
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
from kdaug.files import sync_folder, write_whole

KEPT = 2
_WEIGHTS, _STATE, _SUMS = "weights.safetensors", "state.pt", "sha256.json"
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass
class TrainingState:
    """What changes while training. `step` counts the optimisation steps done."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    step: int = 0
    best_top1_error: float | None = None


class Diverged(Exception):
    """Training has lost its way: a loss, weight or statistic is no longer finite. The message says which, and when."""


def require_finite(state: TrainingState) -> None:
    """Diverged if a weight or statistic of the network is no longer finite: such a state is not to be kept."""
    for name, value in state.network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise Diverged(f"{name} of the network is not finite after step {state.step}")


def save_checkpoint(state: TrainingState, folder: Path) -> Path:
    """Writes folder/step-NNNNNNNN whole or not at all (files, then their sums, fsync, rename); keeps the last two."""
    final = folder / f"step-{state.step:08d}"
    unfinished = folder / f".{final.name}.part"
    for abandoned in folder.glob(".step-*.part"):
        shutil.rmtree(abandoned)
    unfinished.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in state.network.state_dict().items()}
    rest = io.BytesIO()
    torch.save(_state_dict(state), rest)
    contents = {_WEIGHTS: safetensors.torch.save(weights), _STATE: rest.getvalue()}
    for name, content in contents.items():
        write_whole(unfinished / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    write_whole(unfinished / _SUMS, json.dumps(sums))
    sync_folder(unfinished)
    if final.exists():
        shutil.rmtree(final)
    unfinished.rename(final)
    sync_folder(folder)
    for old in all_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_newest_checkpoint(state: TrainingState, folder: Path, report: Callable[[str], None]) -> bool:
    """Fills `state` from the newest sound checkpoint in `folder`; False if there are none.

    A damaged one is reported and passed over; InputError if none is sound, for to begin again would lose what was
    learned unasked. Nothing loaded can run code.
    """
    checkpoints = all_checkpoints(folder)
    for checkpoint in reversed(checkpoints):
        try:
            sums = json.loads((checkpoint / _SUMS).read_text())
            damaged = [name for name in (_WEIGHTS, _STATE) if _sum_of(checkpoint / name) != sums[name]]
            if damaged:
                raise ValueError(f"{damaged[0]} differs from its checksum")
            rest = torch.load(checkpoint / _STATE, weights_only=True)
            state.network.load_state_dict(safetensors.torch.load_file(checkpoint / _WEIGHTS))
            _restore(state, rest)
            return True
        except _DAMAGE as error:
            reason = " ".join(str(error).split())
            report(f"checkpoint {checkpoint} is damaged ({reason[:200]})")
    if checkpoints:
        raise InputError(f"no checkpoint in {folder} is sound; bring one back, or train anew in another --run.dir")
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


def all_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8}", path.name) and path.is_dir())


def _sum_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
