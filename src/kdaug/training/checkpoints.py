"""Checkpoints: everything a run needs to go on as if it had never stopped.

One format for every way of training: whole tensors by name, whether one process held them or many held parts.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from kdaug.errors import InputError
from kdaug.runs import list_checkpoints
from kdaug.storage.atomic import atomic_write, fsync_directory
from kdaug.training.distributed import DistContext
from kdaug.training.state import Diverged, TrainState

KEPT = 2
ALONE = DistContext()
_WEIGHTS, _AVERAGE, _STATE, _SUMS = "weights.safetensors", "average.safetensors", "state.pt", "sha256.json"
_PARTS = {"step", "best_top1_error", "seconds", "optimizer", "scaler", "generators"}
_DAMAGE = (
    OSError, ValueError, KeyError, TypeError, RuntimeError, safetensors.SafetensorError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, read but not yet put in place."""

    weights: dict[str, Any]
    average: dict[str, Any] | None
    rest: dict[str, Any]


def require_finite(state: TrainState, dist: DistContext = ALONE) -> None:
    """Diverged, on every rank, if a weight or statistic of the network is no longer finite: it is not to be kept."""
    bad = [name for name, value in state.network.state_dict().items() if not _is_finite(value)]
    for name in (name for names in dist.gather(bad[:1]) for name in names):
        raise Diverged(f"{name} of the network is not finite after step {state.step}")


def _is_finite(value: Tensor) -> bool:
    here = value.to_local() if isinstance(value, DTensor) else value
    return not here.is_floating_point() or bool(here.isfinite().all())


def full_state_dict(network: nn.Module) -> dict[str, Any]:
    """The network's tensors by name, whole and in main memory; on ranks but the first of several, nothing."""
    return get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def save_checkpoint(state: TrainState, folder: Path, dist: DistContext = ALONE) -> Path:
    """Writes folder/step-NNNNNNNN whole or not at all (files, then their sums, fsync, rename); keeps the last two."""
    contents = _contents(state, dist)
    return dist.run_on_rank0(lambda: _write(contents, folder, f"step-{state.step:08d}"))


def _contents(state: TrainState, dist: DistContext) -> dict[str, bytes]:
    """The files of a checkpoint, by name; all ranks put them together, the first has them."""
    networks = {_WEIGHTS: full_state_dict(state.network)}
    if state.ema is not None:
        networks[_AVERAGE] = full_state_dict(state.ema.module)
    rest = {
        "step": state.step,
        "best_top1_error": state.best_top1_error,
        "seconds": state.seconds,
        "optimizer": get_optimizer_state_dict(
            state.network, state.optimizer, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        ),
        "scaler": state.scaler.state_dict(),
        "generators": dist.gather(_generators(_device_of(state))),
    }
    if not dist.is_rank0:
        return {}
    written = io.BytesIO()
    torch.save(rest, written)
    plain = {name: {key: value.contiguous() for key, value in tensors.items()} for name, tensors in networks.items()}
    return {**{name: safetensors.torch.save(tensors) for name, tensors in plain.items()}, _STATE: written.getvalue()}


def _write(contents: dict[str, bytes], folder: Path, name: str) -> Path:
    final, unfinished = folder / name, folder / f".{name}.part"
    for abandoned in folder.glob(".step-*.part"):
        shutil.rmtree(abandoned)
    unfinished.mkdir(parents=True)
    for file, content in contents.items():
        atomic_write(unfinished / file, content)
    sums = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
    atomic_write(unfinished / _SUMS, json.dumps(sums))
    fsync_directory(unfinished)
    if final.exists():
        shutil.rmtree(final)
    unfinished.rename(final)
    fsync_directory(folder)
    for old in list_checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_newest_checkpoint(
    state: TrainState, folder: Path, report: Callable[[str], None], dist: DistContext = ALONE
) -> bool:
    """Fills `state` from the newest sound checkpoint in `folder`, which the first rank reads; False if there are none.

    A damaged one is reported and passed over; InputError if none is sound, for to begin again would lose what was
    learned unasked, or if it is of another network. Nothing loaded can run code.
    """
    read = dist.run_on_rank0(lambda: _read_newest(folder, state.ema is not None, report))
    if read is None:
        return False
    try:
        _restore(state, read, dist)
    except (RuntimeError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the checkpoint at step {read.rest['step']} in {folder} does not fit: {reason}") from None
    return True


def _read_newest(folder: Path, averaged: bool, report: Callable[[str], None]) -> Checkpoint | None:
    checkpoints = list_checkpoints(folder)
    for path in reversed(checkpoints):
        try:
            return _read(path, averaged)
        except _DAMAGE as error:
            reason = " ".join(str(error).split())
            report(f"checkpoint {path} is damaged ({reason[:200]})")
    if checkpoints:
        raise InputError(f"no checkpoint in {folder} is sound; bring one back, or train anew in another --run.dir")
    return None


def _read(path: Path, averaged: bool) -> Checkpoint:
    """The checkpoint at `path`; one of the errors of _DAMAGE if it is not what was written."""
    sums = json.loads((path / _SUMS).read_text())
    for name in (_WEIGHTS, _STATE, *([_AVERAGE] if averaged else [])):
        if _sum_of(path / name) != sums[name]:
            raise ValueError(f"{name} differs from its checksum")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol
            rest = torch.load(path / _STATE, weights_only=True)
    except pickle.UnpicklingError:  # torch's own words advise to switch the protection off
        raise ValueError(f"{_STATE} would have to run code to be loaded, or is not whole") from None
    if missing := sorted(_PARTS - rest.keys()):
        raise ValueError(f"{_STATE} lacks {missing[0]}")
    weights = safetensors.torch.load_file(path / _WEIGHTS)
    return Checkpoint(weights, safetensors.torch.load_file(path / _AVERAGE) if averaged else None, rest)


def _restore(state: TrainState, read: Checkpoint, dist: DistContext) -> None:
    whole = StateDictOptions(full_state_dict=True)
    if strangers := sorted(state.network.state_dict().keys() ^ read.weights.keys()):  # torch would pass over them
        raise ValueError(f"{strangers[0]} is in the checkpoint or in the network, but not in both")
    set_model_state_dict(state.network, read.weights, options=whole)
    if state.ema is not None and read.average is not None:
        set_model_state_dict(state.ema.module, read.average, options=whole)
    set_optimizer_state_dict(state.network, state.optimizer, read.rest["optimizer"], options=whole)
    state.scaler.load_state_dict(read.rest["scaler"])
    state.step, state.best_top1_error = read.rest["step"], read.rest["best_top1_error"]
    state.seconds = read.rest["seconds"]
    if dist.rank < len(read.rest["generators"]):  # else there were fewer ranks, and this one goes on as it began
        _set_generators(read.rest["generators"][dist.rank], _device_of(state))


def _device_of(state: TrainState) -> torch.device:
    return next(state.network.parameters()).device


def _generators(device: torch.device) -> dict[str, Tensor]:
    """The state of torch's generators that this rank, which computes on `device`, draws from."""
    states = {"cpu": torch.get_rng_state()}
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_generators(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)


def remove_checkpoint(folder: Path, step: int) -> None:
    """Removes the checkpoint at `step`, which turned out to be of no use; the one before is the newest then."""
    shutil.rmtree(folder / f"step-{step:08d}", ignore_errors=True)


def _sum_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
