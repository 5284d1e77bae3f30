"""kdaug eval RUN"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from kdaug.cli.output import check_output_file
from kdaug.cli.parsing import OPTIONAL_FILE, parse
from kdaug.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Evaluate the weights of a run on its validation images, or timm's pretrained weights on your own images.

    With data.root of other images, their validation split is evaluated, or all of them if they have none.

    kdaug eval runs/a
    kdaug eval runs/a --page
    kdaug eval timm:tf_efficientnet_b0.aa_in1k --data.root imagenet
    """

    run: tyro.conf.Positional[str]
    """Run directory, or timm:NAME."""
    weights: Literal["last", "best"] = "last"
    """last: the final weights; best: those of the epoch with the lowest error (selected on the validation images)."""
    name: Annotated[Literal["folder", "shards", "hub"] | None, tyro.conf.arg(name="data.name")] = None
    """For timm:NAME: the kind of dataset at data.root; None: folder."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Directory of the dataset; None: as in the run's recipe."""
    device: Annotated[str, tyro.conf.arg(name="run.device")] = "auto"
    """auto (a GPU if available), cpu, cuda, ..."""
    evaluate_size: Annotated[int | None, tyro.conf.arg(name="run.evaluate-size")] = None
    """Side in pixels that the images are resized to; None: as in the run."""
    json: bool = False
    """Print the result as one JSON object, with the error of each class."""
    csv: str | None = None
    """Write a row per image to this file: path, label, predicted class, its probability."""
    page: Annotated[str | None, OPTIONAL_FILE] = None
    """Write a page with the errors of classes, confusion matrix, calibration and the most confident mistakes to this
    file; without FILE to evaluation.html in the run directory (timm:NAME: here)."""


def run(arguments: list[str]) -> int:
    """Evaluates and prints the scores; returns the exit code."""
    args = parse(Arguments, arguments, "kdaug eval")
    page = _page_path(args)
    for flag, file in (("--page", args.page), ("--csv", args.csv)):
        if file:
            check_output_file(flag, Path(file))

    from rich.console import Console

    from kdaug.inference import evaluation_of_published, evaluation_of_run
    from kdaug.inference.prediction_files import write_evaluation_csv
    from kdaug.training.evaluation import describe_errors
    from kdaug.training.progress import console_logging

    with console_logging(Console(stderr=True)):
        if args.run.startswith("timm:"):
            network, kind = args.run.removeprefix("timm:"), args.name or "folder"
            evaluation = evaluation_of_published(network, kind, args.root, args.device, args.evaluate_size)
        elif args.name is not None:
            raise InputError("data.name is for timm:NAME only", "omit it; a run knows the kind of its data")
        else:
            evaluation = evaluation_of_run(Path(args.run), args.weights, args.root, args.device, args.evaluate_size)
    name = args.run if args.run.startswith("timm:") else f"{args.run} ({args.weights} weights)"
    if args.json:
        print(json.dumps(evaluation.as_dict()))
    else:
        scores = evaluation.scores
        errors = describe_errors(scores.top1_error, scores.top5_error, len(evaluation.classes))
        print(f"{name}: error {errors}, loss {scores.val_loss:.4f}, on {scores.images:,} images")
    if args.csv is not None:
        write_evaluation_csv(evaluation, Path(args.csv))
        print(f"predictions written to {args.csv}", file=sys.stderr if args.json else sys.stdout)
    if page is not None:
        from kdaug.study.report.evaluation_page import write_evaluation_page

        write_evaluation_page(evaluation, name, page)
        print(f"page written to {page}", file=sys.stderr if args.json else sys.stdout)
    return 0


def _page_path(args: Arguments) -> Path | None:
    """Where to write the page; None: nowhere."""
    if args.page is None or args.page:
        return None if args.page is None else Path(args.page)
    run = Path(args.run)
    folder = Path() if args.run.startswith("timm:") else run.parent if run.name == "recipe.yaml" else run
    return folder / "evaluation.html"
