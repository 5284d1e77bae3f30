"""Measures distillation with kdaug, timm and torchdistill: the same student, teacher, images, batch size and loss.

    python benchmarks/peers_kd.py                               # Markdown on stdout, progress on stderr, 5 minutes
    python benchmarks/peers_kd.py --json FILE                   # also writes all rounds to FILE
    python benchmarks/peers_kd.py --table FILE                  # prints the Markdown of FILE without measuring
    python benchmarks/peers_kd.py --device cuda                 # Wide-ResNet-28-10 in bfloat16 on a GPU

All contenders run in every round, in one process, with kdaug's default number of torch threads (all cores).
Each library is measured on one fixed batch, which shows the cost of its loss, and with its own data loading and
augmentation. The script exits if the first losses of the libraries differ. Peers that are not installed are reported as
missing; `pip install torchdistill` installs torchdistill.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack

import torch

from harness.machine import load_average
from training_benchmark.peers import (
    LEVEL,
    TIMM_VIEWS,
    timm_fixed_batch,
    timm_with_workers,
    timm_without_workers,
    torchdistill_fixed_batch,
    torchdistill_with_workers,
    torchdistill_without_workers,
)
from training_benchmark.report import TrainingReport
from training_benchmark.script import (
    TrainContender,
    make_contenders,
    pace_of,
    run_training_benchmark,
    start_report,
    workload_of,
)
from training_benchmark.steps import step_on_fixed_batch, train_loop_with_teacher
from training_benchmark.turns import OpenStep, Turn, run_turns

POLICY = "randaugment-n2-m9@timm"
ALL_CLASSES = 100
FIXED_BATCH = ("kdaug-in-place", "timm-in-place", "torchdistill-in-place")

CONTENDERS = (
    TrainContender(
        "kdaug-in-place",
        "kdaug, fixed batch",
        "kdaug's training step with its teacher, on one batch of finished views, uint8 in main memory. Normalization "
        "for student and teacher and, on a GPU, the transfer are included. K = all classes: the ordinary KL "
        "divergence, as in the other libraries. Losses and agreement are computed per image; nothing is read back.",
        step_on_fixed_batch,
    ),
    TrainContender(
        "kdaug",
        "kdaug, training loop",
        f"Views `{POLICY}` (timm's ops and strengths), whole batches in a background thread (on a GPU as many threads "
        "as cores). metrics.jsonl and TensorBoard; the losses are read back every 20 steps.",
        train_loop_with_teacher,
    ),
    TrainContender(
        "timm-in-place",
        "timm, fixed batch",
        "timm.task's LogitDistillationTask as in train.py, on one batch that is already normalized and on the device. "
        "The teacher gets the student's tensor. The loss is read back at every step, as in train.py. On a GPU cuDNN "
        "benchmarks its algorithms, as train.py sets it; kdaug does not set this.",
        timm_fixed_batch,
    ),
    TrainContender(
        "timm",
        "timm, loader without workers",
        f"timm's create_loader on PIL images, `{TIMM_VIEWS}`, random crop after padding, flip; no worker process, so "
        "augmentation and network do not overlap. timm's PrefetchLoader normalizes.",
        timm_without_workers,
    ),
    TrainContender(
        "timm-workers",
        "timm, loader with workers",
        "The same with worker processes: one on a CPU, where kdaug uses one thread for views; one per core on a GPU, "
        "where kdaug uses one thread per core. With torch's threads it uses as many cores as kdaug.",
        timm_with_workers,
    ),
    TrainContender(
        "torchdistill-in-place",
        "torchdistill, fixed batch",
        "DistillationBox with KDLoss as in the image_classification example, on one batch that is already normalized "
        "and on the device. This script adds autocast and the teacher's eval mode, which torchdistill 1.1.5 does not "
        "set. Loss and learning rate go to its MetricLogger at every step. cuDNN on a GPU as with timm.",
        torchdistill_fixed_batch,
    ),
    TrainContender(
        "torchdistill",
        "torchdistill, loader without workers",
        f"Its data loader on PIL images with torchvision's transforms: crop, flip, RandAugment(2, {LEVEL}) (about a "
        "third of timm's strength, and never skipped), ToTensor, Normalize; no worker process.",
        torchdistill_without_workers,
    ),
    TrainContender(
        "torchdistill-workers",
        "torchdistill, loader with workers",
        "The same with as many worker processes as timm.",
        torchdistill_with_workers,
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
"""Peers compared with kdaug, then each library's own loading compared with its fixed batch."""


def measure(args: argparse.Namespace, resources: ExitStack) -> TrainingReport:
    workload = workload_of(args, POLICY, ALL_CLASSES, resources)
    threads = torch.get_num_threads()
    report = start_report(args, workload, packages=("torchdistill",))
    steps = make_contenders(CONTENDERS, workload, report)
    report.first_losses = {name: _first_loss(step) for name, step in steps.items() if name in FIXED_BATCH}
    _require_equal_losses(report.first_losses, 1e-4 if workload.context.precision == torch.float32 else 2e-2)
    turns = [Turn(name, threads, step) for name, step in steps.items()]
    for (name, _), milliseconds in run_turns(turns, pace_of(report), workload.context.device).items():
        report.add_timing(name, threads, milliseconds)
    report.add_ratios(RATIOS)
    report.load.append(load_average())
    return report


def _first_loss(open_step: OpenStep) -> float:
    with open_step() as step:
        return float(step())  # type: ignore[arg-type]


def _require_equal_losses(losses: dict[str, float], tolerance: float) -> None:
    """Exits if the losses for the same weights and batch differ by more than `tolerance`, relatively."""
    (reference, loss), *others = losses.items()
    for name, other in others:
        if not abs(other - loss) <= tolerance * abs(loss):
            sys.exit(f"benchmarks/peers_kd.py: the first loss of {name} is {other}, that of {reference} is {loss}")


def main() -> None:
    run_training_benchmark(__doc__ or "", CONTENDERS, measure, targets=lambda _: [])


if __name__ == "__main__":
    main()
