"""Measures training on photos that are decoded while training: kdaug, timm's loader, and the bare step.

    python benchmarks/photos_step.py --image-size 128 --network resnet18   # Markdown on stdout, progress on stderr
    python benchmarks/photos_step.py --json FILE                           # also writes all rounds to FILE
    python benchmarks/photos_step.py --table FILE                          # prints the Markdown of FILE

Both loaders decode JPEG files of 500 x 375 in two worker processes, take random-resized crops and apply RandAugment.
Measured with torch on one thread and on all cores. All contenders run in every round, in one process.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import torch

from harness.machine import load_average
from harness.report import Target
from kdaug.device import available_cores
from training_benchmark.peers import TIMM_VIEWS, timm_loader_with_bare_step
from training_benchmark.report import TrainingReport
from training_benchmark.script import (
    TrainContender,
    make_contenders,
    pace_of,
    photos_workload_of,
    run_training_benchmark,
    start_report,
)
from training_benchmark.steps import VIEW_STEPS, bare_step, train_loop, views_only
from training_benchmark.turns import Turn, run_turns
from training_benchmark.workload import TrainWorkload

POLICY = "randaugment-n2-m9@timm"
TARGET = 1.0

CONTENDERS = (
    TrainContender(
        "bare",
        "bare step",
        "Forward, cross-entropy, backward, gradient clipping and optimizer in plain PyTorch, on one batch that is "
        "already normalized and on the device.",
        bare_step,
    ),
    TrainContender(
        "loop",
        "kdaug, training loop",
        f"kdaug's training loop: decoding in two worker processes, views `{POLICY}` in a thread, metrics and "
        "TensorBoard. No evaluation, no checkpoints.",
        train_loop,
    ),
    TrainContender(
        "timm",
        "timm's loader, bare step",
        f"timm's create_loader with two worker processes: the same crops, flip and `{TIMM_VIEWS}` on PIL images; then "
        "the bare step. Nothing is logged.",
        timm_loader_with_bare_step,
    ),
    TrainContender("views", "decoding and views only", "As in kdaug's training loop, without a network.", views_only),
)
RATIOS = (("loop", "bare"), ("timm", "bare"), ("loop", "timm"))


def measure(args: argparse.Namespace, resources: ExitStack) -> TrainingReport:
    workload = photos_workload_of(args, POLICY, 1, resources)
    report = start_report(args, workload)
    steps = make_contenders(CONTENDERS, workload, report)
    turns = [
        Turn(name, threads, step, VIEW_STEPS if name == "views" else None)
        for threads in _threads(workload)
        for name, step in steps.items()
    ]
    for (name, threads), milliseconds in run_turns(turns, pace_of(report), workload.context.device).items():
        report.add_timing(name, threads, milliseconds)
    report.add_ratios(RATIOS)
    report.load.append(load_average())
    return report


def _threads(workload: TrainWorkload) -> list[int]:
    return [torch.get_num_threads()] if workload.on_gpu else sorted({1, available_cores()})


def targets(report: TrainingReport) -> list[Target]:
    return [
        Target(
            f"Speed of the training loop over timm's loader with a bare step, torch threads: {ratio.threads}",
            f"≥ {TARGET}×",
            ratio.value,
            ratio.value >= TARGET,
        )
        for ratio in report.ratios
        if (ratio.contender, ratio.against) == ("loop", "timm")
    ]


def main() -> None:
    run_training_benchmark(__doc__ or "", CONTENDERS, measure, targets)


if __name__ == "__main__":
    main()
