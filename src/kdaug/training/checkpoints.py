"""Checkpoints: all that a run needs to resume bit for bit, in one format for one process, DDP and FSDP2."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as dcp_state
from torch.distributed.tensor import DTensor

from kdaug.errors import InputError, one_line
from kdaug.runs import list_checkpoints
from kdaug.storage import atomic_write, fsync_directory
from kdaug.training.distributed import SINGLE_PROCESS, DistContext
from kdaug.training.state import Diverged, TrainState

MAX_CHECKPOINTS = 2
"""How many checkpoints of a run are kept."""
_logger = logging.getLogger(__name__)
_WEIGHTS, _EMA, _STATE, _SUMS = "weights.safetensors", "average.safetensors", "state.pt", "sha256.json"
_FULL = dcp_state.StateDictOptions(full_state_dict=True, cpu_offload=True)
_STATE_KEYS = {"step", "best_top1_error", "seconds", "optimizer", "scaler", "generators"}
_READ_ERRORS = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint, read but not yet loaded into a state. rest: all but the weights."""

    weights: dict[str, Any]
    ema: dict[str, Any] | None
    rest: dict[str, Any]


def require_finite(state: TrainState, dist: DistContext = SINGLE_PROCESS) -> None:
    """Raises Diverged on all ranks if a weight or batch-norm statistic of the network is no longer finite."""
    bad = [name for name, value in state.network.state_dict().items() if not _is_finite(value)]
    for name in (name for names in dist.gather(bad[:1]) for name in names):
        raise Diverged(f"{name} of the network is not finite after step {state.step}")


def _is_finite(value: Tensor) -> bool:
    local = value.to_local() if isinstance(value, DTensor) else value
    return not local.is_floating_point() or bool(local.isfinite().all())


def full_state_dict(network: nn.Module) -> dict[str, Any]:
    """The network's full tensors by name, in main memory; empty on ranks other than 0 of several."""
    return dcp_state.get_model_state_dict(network, options=_FULL)


def save_checkpoint(state: TrainState, folder: Path, dist: DistContext = SINGLE_PROCESS) -> Path:
    """Writes folder/step-NNNNNNNN atomically (files, checksums, fsync, rename) and keeps the last two checkpoints."""
    files = _checkpoint_files(state, dist)
    return dist.run_on_rank0(lambda: _write(files, folder, f"step-{state.step:08d}"))


def _checkpoint_files(state: TrainState, dist: DistContext) -> dict[str, bytes]:
    """The files of a checkpoint by name, on rank 0; all ranks must call this."""
    networks = {_WEIGHTS: full_state_dict(state.network)}
    if state.ema is not None:
        networks[_EMA] = full_state_dict(state.ema.module)
    rest = {
        "step": state.step,
        "best_top1_error": state.best_top1_error,
        "seconds": state.seconds,
        "optimizer": dcp_state.get_optimizer_state_dict(state.network, state.optimizer, options=_FULL),
        "scaler": state.scaler.state_dict(),
        "generators": dist.gather(_generators(_device_of(state))),
    }
    if not dist.is_rank0:
        return {}
    buffer = io.BytesIO()
    torch.save(rest, buffer)
    plain = {name: {key: value.contiguous() for key, value in tensors.items()} for name, tensors in networks.items()}
    return {**{name: safetensors.torch.save(tensors) for name, tensors in plain.items()}, _STATE: buffer.getvalue()}


def _write(files: dict[str, bytes], folder: Path, name: str) -> Path:
    final, partial = folder / name, folder / f".{name}.part"
    for leftover in folder.glob(".step-*.part"):
        shutil.rmtree(leftover)
    partial.mkdir(parents=True)
    for file, content in files.items():
        atomic_write(partial / file, content)
    sums = {file: hashlib.sha256(content).hexdigest() for file, content in files.items()}
    atomic_write(partial / _SUMS, json.dumps(sums))
    fsync_directory(partial)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    fsync_directory(folder)
    for old in list_checkpoints(folder)[:-MAX_CHECKPOINTS]:
        shutil.rmtree(old)
    return final


def load_newest_checkpoint(state: TrainState, folder: Path, dist: DistContext = SINGLE_PROCESS) -> bool:
    """Loads the newest valid checkpoint in `folder` into `state`. Returns False if there is no checkpoint.

    Rank 0 reads it. A damaged checkpoint is skipped with a warning. Raises InputError if all are damaged, as starting
    again would silently lose progress, or if it belongs to another network. Nothing that is loaded can execute code.
    """
    checkpoint = dist.run_on_rank0(lambda: _read_newest(folder, state.ema is not None))
    if checkpoint is None:
        return False
    try:
        _restore(state, checkpoint, dist)
    except (RuntimeError, ValueError, KeyError) as error:
        step = checkpoint.rest["step"]
        raise InputError(f"the checkpoint at step {step} in {folder} does not fit: {one_line(error)}") from None
    return True


def _read_newest(folder: Path, has_ema: bool) -> Checkpoint | None:
    checkpoints = list_checkpoints(folder)
    for path in reversed(checkpoints):
        try:
            return _read(path, has_ema)
        except _READ_ERRORS as error:
            _logger.warning(f"checkpoint {path} is damaged ({one_line(error)})")
    if checkpoints:
        raise InputError(f"no valid checkpoint in {folder}", "restore one, or start a new run in another run.dir")
    return None


def _read(path: Path, has_ema: bool) -> Checkpoint:
    """The checkpoint at `path`. Raises one of _READ_ERRORS if it is not what was written."""
    sums = json.loads((path / _SUMS).read_text())
    for name in (_WEIGHTS, _STATE, *([_EMA] if has_ema else [])):
        with open(path / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sums[name]:
            raise ValueError(f"{name} differs from its checksum")
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle's protocol
            rest = torch.load(path / _STATE, weights_only=True)
    except pickle.UnpicklingError:  # torch's own message suggests to disable the protection
        raise ValueError(f"{_STATE} would execute code when loaded, or is incomplete") from None
    if missing := sorted(_STATE_KEYS - rest.keys()):
        raise ValueError(f"{_STATE} lacks {missing[0]}")
    weights = safetensors.torch.load_file(path / _WEIGHTS)
    return Checkpoint(weights, safetensors.torch.load_file(path / _EMA) if has_ema else None, rest)


def _restore(state: TrainState, checkpoint: Checkpoint, dist: DistContext) -> None:
    full = dcp_state.StateDictOptions(full_state_dict=True)
    if unmatched := sorted(state.network.state_dict().keys() ^ checkpoint.weights.keys()):  # torch would ignore them
        raise ValueError(f"{unmatched[0]} is in the checkpoint or in the network, but not in both")
    dcp_state.set_model_state_dict(state.network, checkpoint.weights, options=full)
    if state.ema is not None and checkpoint.ema is not None:
        dcp_state.set_model_state_dict(state.ema.module, checkpoint.ema, options=full)
    dcp_state.set_optimizer_state_dict(state.network, state.optimizer, checkpoint.rest["optimizer"], options=full)
    state.scaler.load_state_dict(checkpoint.rest["scaler"])
    state.step, state.best_top1_error = checkpoint.rest["step"], checkpoint.rest["best_top1_error"]
    state.seconds, generators = checkpoint.rest["seconds"], checkpoint.rest["generators"]
    if dist.rank < len(generators):  # else there were fewer ranks, and this one keeps its initial state
        _set_generators(generators[dist.rank], _device_of(state))


def _device_of(state: TrainState) -> torch.device:
    return next(state.network.parameters()).device


def _generators(device: torch.device) -> dict[str, Tensor]:
    """The states of the torch generators that this rank uses on `device`."""
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def remove_checkpoint(folder: Path, step: int) -> None:
    """Removes the checkpoint at `step`, so that the one before it is the newest."""
    shutil.rmtree(folder / f"step-{step:08d}", ignore_errors=True)
