"""Measures the overhead of kdaug's training loop over the bare forward, backward and optimizer step.

    python benchmarks/training_step.py                          # Markdown on stdout, progress on stderr, 5 minutes
    python benchmarks/training_step.py --json FILE              # also writes all rounds to FILE
    python benchmarks/training_step.py --table FILE             # prints the Markdown of FILE without measuring
    python benchmarks/training_step.py --device cuda            # Wide-ResNet-28-10 in bfloat16 on a GPU

On a CPU everything is measured with torch on one thread and on all cores. All contenders run in every round, in one
process, so that other load on the machine slows all alike. Evaluation and checkpoints are not measured.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import torch

from harness.machine import load_average
from harness.report import Target
from harness.rounds import Spread, spread_of
from kdaug.device import available_cores
from training_benchmark.matrix import MatrixProduct, training_operations
from training_benchmark.report import MatrixRate, TrainingReport
from training_benchmark.script import (
    TrainContender,
    make_contenders,
    pace_of,
    run_training_benchmark,
    start_report,
    workload_of,
)
from training_benchmark.steps import (
    VIEW_STEPS,
    bare_step,
    bare_step_with_teacher,
    train_loop,
    train_loop_with_teacher,
    views_only,
)
from training_benchmark.turns import Turn, always, run_turns
from training_benchmark.workload import TrainWorkload

POLICY = "randaugment-n2-m5@paper-geometric"
K = 5
TARGET = 0.95
MATRIX = "matrix-product"

CONTENDERS = (
    TrainContender(
        "bare",
        "bare step",
        "Forward, cross-entropy, backward, gradient clipping and optimizer in plain PyTorch, on one batch that is "
        "already normalized and on the device. Optimizer, clipping, autocast and memory format as in kdaug.",
        bare_step,
    ),
    TrainContender(
        "loop",
        "training loop",
        "kdaug's training loop: sampling and views (in a background thread), transfer, normalization, step, learning "
        "rate, metrics.jsonl and TensorBoard. No evaluation, no checkpoints, no progress bar on the terminal.",
        train_loop,
    ),
    TrainContender(
        "bare-teacher",
        "bare step with teacher forward",
        "The bare step after the teacher's forward pass in inference mode on the same batch. No divergence is "
        "computed: any training loop with this teacher takes at least this time.",
        bare_step_with_teacher,
    ),
    TrainContender(
        "loop-teacher",
        "training loop with teacher",
        "The training loop with a teacher on the same views; the top-K divergence and the agreement are computed and "
        "logged.",
        train_loop_with_teacher,
    ),
    TrainContender("views", "views only", "Sampling and views as in the training loop, in the foreground.", views_only),
)
RATIOS = (("loop", "bare"), ("bare-teacher", "bare"), ("loop-teacher", "bare-teacher"))


def measure(args: argparse.Namespace, resources: ExitStack) -> TrainingReport:
    workload = workload_of(args, POLICY, K, resources)
    report = start_report(args, workload)
    steps = make_contenders(CONTENDERS, workload, report)
    product = MatrixProduct(workload.context)
    steps[MATRIX] = always(product)
    turns = [
        Turn(name, threads, step, VIEW_STEPS if name == "views" else None)
        for threads in _threads(workload)
        for name, step in steps.items()
    ]
    for (name, threads), milliseconds in run_turns(turns, pace_of(report), workload.context.device).items():
        if name == MATRIX:
            report.matrix.append(_rate(product, threads, milliseconds, report.settings.precision))
        else:
            report.add_timing(name, threads, milliseconds)
    report.add_ratios(RATIOS)
    report.add_shares(("bare", "loop"), training_operations(workload.context))
    report.load.append(load_average())
    return report


def _threads(workload: TrainWorkload) -> list[int]:
    """One thread and all cores. On a GPU torch's CPU threads do not matter; kdaug's default is kept."""
    return [torch.get_num_threads()] if workload.on_gpu else sorted({1, available_cores()})


def _rate(product: MatrixProduct, threads: int, milliseconds: Spread, precision: str) -> MatrixRate:
    teraflops = [product.operations / (value * 1e-3) / 1e12 for value in milliseconds.rounds]
    return MatrixRate(threads, product.side, precision, spread_of(teraflops))


def targets(report: TrainingReport) -> list[Target]:
    return [
        Target(
            f"Speed of the training loop over the bare step, torch threads: {ratio.threads}",
            f"≥ {TARGET}×",
            ratio.value,
            ratio.value >= TARGET,
        )
        for ratio in report.ratios
        if (ratio.contender, ratio.against) == ("loop", "bare")
    ]


def main() -> None:
    run_training_benchmark(__doc__ or "", CONTENDERS, measure, targets)


if __name__ == "__main__":
    main()
