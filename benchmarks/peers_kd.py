"""Measures distillation with kdaug, timm and torchdistill: the same student, teacher, images, batch and loss.

    python benchmarks/peers_kd.py                               # tables on stdout, progress on stderr, 5 minutes
    python benchmarks/peers_kd.py --json FILE                   # and everything, round by round, in FILE
    python benchmarks/peers_kd.py --table FILE                  # the tables of such a file, nothing measured
    python benchmarks/peers_kd.py --device cuda                 # Wide-ResNet-28-10 in bfloat16 on a GPU

All take turns in one process, with torch on as many threads as kdaug takes by itself: all cores but one. Each trains
once on a batch in place, which shows the loss part, and once with its own views, which adds the data part. Before
anything is measured, all must find the same loss. Peers that are not installed are reported as missing; torchdistill
comes with `pip install torchdistill`.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

import torch

from training_benchmark.peers import (
    LEVEL,
    TIMM_VIEWS,
    timm_in_place,
    timm_loader_beside,
    timm_loader_inside,
    torchdistill_in_place,
    torchdistill_loader_beside,
    torchdistill_loader_inside,
)
from training_benchmark.report import TrainingReport
from training_benchmark.script import begin_report, make_all, measure_turns, prepare_work, run_script, timing_of
from training_benchmark.steps import learning_in_place, loop_with_teacher
from training_benchmark.turns import Contender, Opening, Turn
from views_benchmark.machine import load

POLICY = "randaugment-n2-m9@timm"
ALL_CLASSES = 100
IN_PLACE = ("kdaug-in-place", "timm-in-place", "torchdistill-in-place")

CONTENDERS = (
    Contender(
        "kdaug-in-place",
        "kdaug, in place",
        "Its step with its teacher, on one batch of views already made, uint8 in main memory: normalising (for student "
        "and teacher), and on a GPU the transfer, are included. K = all classes, the ordinary divergence, which the "
        "others have too. Losses and agreement image by image; nothing is read back.",
        learning_in_place,
    ),
    Contender(
        "kdaug",
        "kdaug, whole loop",
        f"Views `{POLICY}` (timm's ops and strengths), a batch at a time, in a thread beside torch's (on a GPU in as "
        "many as cores); metrics.jsonl and TensorBoard, the losses read every 20 steps.",
        loop_with_teacher,
    ),
    Contender(
        "timm-in-place",
        "timm, in place",
        "timm.task's LogitDistillationTask as train.py drives it, on one batch normalised and in place. The teacher "
        "sees the student's tensor. The loss is read at every step, as train.py does. On a GPU cuDNN tries out its "
        "algorithms, as train.py sets it; kdaug leaves that off.",
        timm_in_place,
        cudnn_benchmark=True,
    ),
    Contender(
        "timm",
        "timm, loader in the process",
        f"timm's create_loader on PIL images, `{TIMM_VIEWS}`, random crop after padding, flip; no worker process, so "
        "views and network take turns. timm's PrefetchLoader normalises.",
        timm_loader_inside,
        cudnn_benchmark=True,
    ),
    Contender(
        "timm-workers",
        "timm, loader beside it",
        "The same with worker processes: one on a CPU, where kdaug has one thread for views; as many as cores on a "
        "GPU, where kdaug has as many threads. Together with torch's threads it keeps as many cores busy as kdaug.",
        timm_loader_beside,
        cudnn_benchmark=True,
    ),
    Contender(
        "torchdistill-in-place",
        "torchdistill, in place",
        "Its DistillationBox with KDLoss as its image_classification example drives it, on one batch normalised and in "
        "place. Autocast and the teacher's evaluation mode are ours: torchdistill 1.1.5 sets neither. Loss and "
        "learning rate go to its MetricLogger at every step. cuDNN on a GPU as with timm.",
        torchdistill_in_place,
        cudnn_benchmark=True,
    ),
    Contender(
        "torchdistill",
        "torchdistill, loader in the process",
        f"Its data loader on PIL images with torchvision's transforms: crop, flip, RandAugment(2, {LEVEL}) "
        "(about a third of timm's strength, and never skipped), ToTensor, Normalize; no worker process.",
        torchdistill_loader_inside,
        cudnn_benchmark=True,
    ),
    Contender(
        "torchdistill-workers",
        "torchdistill, loader beside it",
        "The same with as many worker processes as timm's.",
        torchdistill_loader_beside,
        cudnn_benchmark=True,
    ),
)
RATIOS = (
    ("timm-in-place", "kdaug-in-place"),
    ("torchdistill-in-place", "kdaug-in-place"),
    ("timm", "kdaug"),
    ("timm-workers", "kdaug"),
    ("torchdistill", "kdaug"),
    ("torchdistill-workers", "kdaug"),
    ("kdaug", "kdaug-in-place"),
    ("timm", "timm-in-place"),
    ("timm-workers", "timm-in-place"),
    ("torchdistill", "torchdistill-in-place"),
    ("torchdistill-workers", "torchdistill-in-place"),
)
"""Peers against kdaug, then everyone's whole loop against its own batch in place."""


def measure(given: argparse.Namespace, held: ExitStack) -> TrainingReport:
    work = prepare_work(given, POLICY, ALL_CLASSES, held)
    threads = torch.get_num_threads()
    report = begin_report(given, work, packages=("torchdistill",))
    made = make_all(CONTENDERS, work, report)
    report.first_losses = {one.name: _first_loss(opened) for one, opened in made if one.name in IN_PLACE}
    _require_one_loss(report.first_losses, 1e-4 if work.context.precision == torch.float32 else 2e-2)
    turns = [Turn(one.name, threads, opened, one.cudnn_benchmark) for one, opened in made]
    taken = measure_turns(turns, report, work.context.device)
    report.timings = [timing_of(name, count, spread, given.batch) for (name, count), spread in taken.items()]
    report.ratios = report.ratios_of(RATIOS)
    report.load.append(load())
    return report


def _first_loss(opened: Opening) -> float:
    with opened() as step:
        return float(step())  # type: ignore[arg-type]


def _require_one_loss(losses: dict[str, float], tolerance: float) -> None:
    """What is compared must be the same: with one set of weights and one batch all find one loss."""
    (reference, loss), *others = losses.items()
    for name, other in others:
        if not abs(other - loss) <= tolerance * abs(loss):
            sys.exit(f"benchmarks/peers_kd.py: the first loss of {name} is {other}, that of {reference} {loss}")


if __name__ == "__main__":
    run_script(__doc__ or "", measure)
