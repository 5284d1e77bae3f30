"""timm: a folder with config.json and model.safetensors, which timm.create_model opens."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor

from kdaug.errors import InputError, one_line
from kdaug.export.check import Comparison, compare
from kdaug.export.graph import METADATA_KEY, quiet
from kdaug.export.reference import Reference
from kdaug.export.source import ExportSource
from kdaug.networks import InputFormat, save_weights
from kdaug.storage import atomic_folder, atomic_write

WEIGHTS_NAME, CONFIG_NAME = "model.safetensors", "config.json"


def export_timm(source: ExportSource, reference: Reference, path: Path) -> Comparison:
    """Writes the folder `path` if the network that timm loads from it agrees with `reference`.

    Raises InputError if timm does not load weights into the network, or if it does not agree.
    """
    with atomic_folder(path) as folder:
        return fill_timm_folder(source, reference, folder)


def fill_timm_folder(source: ExportSource, reference: Reference, folder: Path) -> Comparison:
    """Writes config.json and model.safetensors into `folder`, and compares the network that timm loads from there.

    The weights are also a weight file of kdaug. Raises InputError as `export_timm`.
    """
    config = timm_config(source)
    save_weights(source.network.state_dict(), source.info, folder / WEIGHTS_NAME)
    _write_config(folder, config)
    try:
        with quiet():
            network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # of any type, from timm or the network
        raise InputError(f"timm cannot load network {source.info.network} again: {one_line(error)}") from None
    pretrained_cfg: Any = network.pretrained_cfg
    input_format = InputFormat(tuple(pretrained_cfg["mean"]), tuple(pretrained_cfg["std"]), None)

    def predict(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = network(input_format.normalize(images))
        return logits

    comparison = compare(reference, predict, f"timm {timm.__version__}, torch {torch.__version__}")
    _write_config(folder, {**config, METADATA_KEY: {"version": version("kdaug"), "check": asdict(comparison)}})
    return comparison


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    atomic_write(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")


def timm_config(source: ExportSource) -> dict[str, Any]:
    """The content of config.json, as `timm.models._hub` reads it.

    Raises InputError for a network that has no pretrained_cfg, because timm loads no weights into it.
    """
    info = source.info
    published = getattr(source.network, "pretrained_cfg", None)
    if not isinstance(published, dict):
        raise InputError(
            f"network {info.network} cannot be exported to timm: it has no pretrained_cfg, so timm loads no weights",
            "create it with timm.models.build_model_with_cfg",
        )
    config: dict[str, Any] = {
        "architecture": info.network.partition(".")[0],
        "num_classes": len(info.classes),
        "label_names": list(info.classes),
        "pretrained_cfg": {
            "input_size": [len(info.mean), *info.size],
            "fixed_input_size": bool(published.get("fixed_input_size", False)),
            "interpolation": "bicubic",
            "crop_pct": source.crop_fraction,
            "crop_mode": "center",
            "mean": list(info.mean),
            "std": list(info.std),
            "num_classes": len(info.classes),
            "pool_size": None,
            "first_conv": published.get("first_conv"),
            "classifier": published.get("classifier"),
        },
    }
    return config | ({"model_args": dict(info.arguments)} if info.arguments else {})


def network_module(source: ExportSource) -> str | None:
    """The module to import before timm knows the network; None if it is timm's own."""
    module: str = timm.model_entrypoint(source.info.network).__module__
    if module.startswith("timm."):
        return None
    return "kdaug.networks" if module.startswith("kdaug.") else module
