"""kdaug eval RUN"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from kdaug.cli.parsing import parse


@dataclass(frozen=True)
class Arguments:
    """Error of a run's weights on the validation images of its data set, or of timm's weights on any of one's own.

    kdaug eval runs/a
    kdaug eval timm:tf_efficientnet_b0.aa_in1k --data.root imagenet
    """

    run: tyro.conf.Positional[str]
    """Run directory, or timm:NAME."""
    weights: Literal["last", "best"] = "last"
    """The final weights, or those with the lowest error on the way (chosen on these very images)."""
    name: Annotated[Literal["folder", "shards", "hub"] | None, tyro.conf.arg(name="data.name")] = None
    """What data.root is, for timm:NAME; None: folder. A run knows its own."""
    root: Annotated[str | None, tyro.conf.arg(name="data.root")] = None
    """Where the data are now; None: where they were when training."""
    device: Annotated[str, tyro.conf.arg(name="run.device")] = "auto"
    """auto, cpu, cuda, ..."""
    evaluate_size: Annotated[int | None, tyro.conf.arg(name="run.evaluate-size")] = None
    """Side in pixels that the images are brought to; None: as in the run."""
    json: bool = False
    """Print the figures as one JSON object."""


def run(arguments: list[str]) -> int:
    """Evaluates and prints; returns the exit code."""
    given = parse(Arguments, arguments, "kdaug eval")

    from kdaug.inference.evaluate import evaluate_run

    scores = evaluate_run(given.run, given.weights, given.name, given.root, given.device, given.evaluate_size)
    if given.json:
        print(json.dumps(scores.figures()))
    else:
        which = "" if given.run.startswith("timm:") else f" ({given.weights} weights)"
        print(
            f"{given.run}{which}: error {scores.top1_error:.2f} %, top-5 {scores.top5_error:.2f} %, "
            f"loss {scores.val_loss:.4f}, on {scores.images:,} images"
        )
    return 0
