"""Reads weights from files that other trainers wrote with torch.save. Nothing in a file can execute code."""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdaug.errors import InputError

_logger = logging.getLogger(__name__)
_AVERAGES = ("state_dict_ema", "model_ema")
_NESTED = (*_AVERAGES, "state_dict", "model")
"""Where trainers put the weights. The moving average comes first, as it is what they evaluate."""
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]
"""Classes that may occur beside the tensors: timm and DeiT save their command line. It only holds attributes."""


def read_torch_file(path: Path) -> dict[str, Tensor]:
    """The tensors by name in a torch file, read in weights-only mode. Raises InputError for any other file."""
    content = _load(path)
    while isinstance(content, dict):
        key = next((key for key in _NESTED if isinstance(content.get(key), dict)), None)
        if key is None:
            break
        if key in _AVERAGES:
            _logger.info(f"weight file {path}: using {key}, the moving average of the weights")
        content = content[key]
    if not isinstance(content, dict) or not content or not all(_is_plain(*item) for item in content.items()):
        raise InputError(f"{path} is not a weight file: it has no plain tensors by name")
    return content


def strip_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors` without the prefix "module." of DDP and EMA and without "_orig_mod." of torch.compile, at any depth.

    path: for the InputError if two tensors then have the same name.
    """
    stripped = {_without_wrappers(name): tensor for name, tensor in tensors.items()}
    if len(stripped) < len(tensors):
        raise InputError(f"weight file {path} has tensors that differ only in the prefix module. or _orig_mod.")
    return stripped


def _without_wrappers(name: str) -> str:
    parts = [part for part in name.split(".") if part != "_orig_mod"]
    while len(parts) > 1 and parts[0] == "module":
        parts = parts[1:]
    return ".".join(parts)


def _load(path: Path) -> Any:
    try:
        # Opened here: torch.load decides by name whether a file is safetensors. It warns about old pickle protocols.
        with (
            path.open("rb") as file,
            warnings.catch_warnings(action="ignore"),
            torch.serialization.safe_globals(_ALLOWED),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch's unpickler raises exceptions of any type for damaged files
        raise InputError(
            f"{path} is not a weight file: neither safetensors nor a torch file of plain tensors "
            "(one that would have to run code when loaded is refused)",
            "if it is a whole network, save its weights alone: torch.save(network.state_dict(), PATH)",
        ) from None


def _is_plain(name: Any, value: Any) -> bool:
    """Whether an entry of a file is a named, dense tensor with data."""
    return isinstance(name, str) and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta
