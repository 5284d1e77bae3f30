"""Exports a run or a weight file in one of the formats."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from kdaug.errors import InputError
from kdaug.export import onnx
from kdaug.export.check import Comparison
from kdaug.export.graph import GraphInput
from kdaug.export.hub import export_hub
from kdaug.export.reference import make_reference
from kdaug.export.source import load_source
from kdaug.export.timm_folder import export_timm
from kdaug.export.torch_export import export_torch
from kdaug.inference.finished_run import Weights

_logger = logging.getLogger(__name__)
Format = Literal["onnx", "torch-export", "timm", "hub"]


def export_model(
    source: Path,
    to: Format,
    out: Path,
    weights: Weights = "last",
    with_preprocessing: bool = False,
    images: Path | None = None,
    repository: str | None = None,
) -> Comparison:
    """Exports a finished run, or a weight file that kdaug wrote, to `out`, which must not exist.

    onnx and torch-export write a file, timm and hub a folder. It appears at once, and only if its logits agree with the
    run's on real images: the run's validation images, or those in the folder `images`.

    weights: of a run. with_preprocessing: for onnx and torch-export, put the normalization into the graph, which then
    takes uint8 [N,H,W,C] instead of normalized float32 [N,C,H,W]. repository: OWNER/NAME that the model card of hub
    names. Raises InputError if an argument, the run, the network or the images cannot be used, or if the exported
    network does not agree with the run.
    """
    if with_preprocessing and to in ("timm", "hub"):
        raise InputError(f"--with-preprocessing has no effect with --to {to}", "timm normalizes the images itself")
    if out.exists() or out.is_symlink():
        raise InputError(f"{out} exists", "choose another --out")
    if not out.parent.is_dir():
        raise InputError(f"folder {out.parent} does not exist", "create it, or choose another --out")
    if to == "onnx":
        onnx.check_packages()
    loaded = load_source(source, weights)
    reference = make_reference(loaded, images)
    _logger.info(f"exporting {source}, to be compared on {reference.description}")
    match to:
        case "onnx":
            return onnx.export_onnx(GraphInput(loaded, with_preprocessing), reference, out)
        case "torch-export":
            return export_torch(GraphInput(loaded, with_preprocessing), reference, out)
        case "timm":
            return export_timm(loaded, reference, out)
        case "hub":
            return export_hub(loaded, reference, out, repository)
