"""kdaug export RUN --to FORMAT --out PATH"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from kdaug.cli.parsing import parse
from kdaug.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Export the network of a finished run for use without kdaug. It is compared with the run before it is kept.

    kdaug export runs/a --to onnx --out a.onnx --with-preprocessing
    kdaug export runs/a --to hub --out a-hub --push OWNER/NAME
    """

    run: tyro.conf.Positional[str]
    """Run directory, or a weight file that kdaug wrote (needs --images)."""
    to: Literal["onnx", "torch-export", "timm", "hub"]
    """onnx (pip install 'kdaug[onnx]'), torch-export (a .pt2 file), timm (a folder for timm.create_model), hub (the
    same with a model card)."""
    out: str
    """File (onnx, torch-export) or folder (timm, hub) to write; it must not exist."""
    weights: Literal["last", "best"] = "last"
    """last: the final weights; best: those of the epoch with the lowest error (selected on the validation images)."""
    with_preprocessing: bool = False
    """For onnx and torch-export: put the normalization into the file, which then takes uint8 [N,H,W,C] instead of
    normalized float32 [N,C,H,W]. Neither resizes."""
    images: str | None = None
    """Folder of images to compare on; None: the validation images of the run."""
    push: str | None = None
    """For hub: upload the folder to OWNER/NAME on the Hugging Face hub with your token (hf auth login, or HF_TOKEN). A
    new repository is private."""


def run(arguments: list[str]) -> int:
    """Exports, prints the comparison and uploads; returns the exit code."""
    args = parse(Arguments, arguments, "kdaug export")
    if args.push is not None and args.to != "hub":
        raise InputError(f"--push has no effect with --to {args.to}", "export with --to hub")

    from rich.console import Console

    from kdaug.export import check_push, export_model, push_to_hub
    from kdaug.training.progress import console_logging

    out, images = Path(args.out), None if args.images is None else Path(args.images)
    if args.push is not None:
        check_push(args.push)
    with console_logging(Console(stderr=True)):
        compared = export_model(
            Path(args.run), args.to, out, args.weights, args.with_preprocessing, images, repository=args.push
        )
    print(f"{args.run} exported to {args.out}")
    print(
        f"compared with the run on {compared.source}, in batches of {', '.join(map(str, compared.batch_sizes))} "
        f"({compared.runtime}): largest difference of logits {compared.max_logit_difference:.2g} "
        f"(allowed: {compared.tolerance:.2g}), same class for {compared.same_class} of {compared.images}"
    )
    if args.to == "hub":
        print(f"fill in the license at the top of {out / 'README.md'}")
    if args.push is not None:
        print(f"uploaded to {push_to_hub(out, args.push)}")
    return 0
