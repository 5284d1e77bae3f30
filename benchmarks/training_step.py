"""Measures what kdaug's training loop costs beside the bare forward, backward and optimiser step of its network.

    python benchmarks/training_step.py                          # tables on stdout, progress on stderr, 5 minutes
    python benchmarks/training_step.py --json FILE              # and everything, round by round, in FILE
    python benchmarks/training_step.py --table FILE             # the tables of such a file, nothing measured
    python benchmarks/training_step.py --device cuda            # Wide-ResNet-28-10 in bfloat16 on a GPU

On a CPU everything is measured with torch on one thread and on all cores. All take turns in one process, so that
whatever else the machine does slows all of them alike. Evaluations and checkpoints are no part of what is measured.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import torch

from kdaug.device import available_cores
from training_benchmark.matrix import MatrixProduct, training_operations
from training_benchmark.report import MatrixRate, TrainingReport
from training_benchmark.script import begin_report, make_all, measure_turns, prepare_work, run_script, timing_of
from training_benchmark.steps import bare, bare_with_teacher, loop, loop_with_teacher, views_alone
from training_benchmark.turns import Contender, Turn, always
from training_benchmark.work import Work
from views_benchmark.machine import load
from views_benchmark.report import Target
from views_benchmark.rounds import Spread, spread_of

POLICY = "randaugment-n2-m5@paper-geometric"
K = 5
WANTED = 0.95
MATRIX = "matrix-product"

CONTENDERS = (
    Contender(
        "bare",
        "bare step",
        "Forward, cross-entropy, backward, clipping and optimiser in plain PyTorch, always on the same batch, which is "
        "normalised and in place. Optimiser, clipping, autocast and memory layout as in the loop.",
        bare,
    ),
    Contender(
        "loop",
        "whole loop",
        "kdaug's loop: order and views (in a thread beside torch's), transfer, normalisation, step, learning rate, "
        "metrics.jsonl and TensorBoard. No evaluation, no checkpoint, and no bar on a terminal.",
        loop,
    ),
    Contender(
        "bare-teacher",
        "bare step and teacher's forward",
        "The bare step, and before it the teacher's forward in inference mode on the same tensor. No divergence: it is "
        "the least that any loop with such a teacher takes.",
        bare_with_teacher,
    ),
    Contender(
        "loop-teacher",
        "whole loop with teacher",
        "The whole loop with a teacher that looks at the same views; top-K divergence and agreement are computed and "
        "logged.",
        loop_with_teacher,
    ),
    Contender("views", "views alone", "Order and views as the loop makes them, but in torch's place.", views_alone),
)
RATIOS = (("loop", "bare"), ("bare-teacher", "bare"), ("loop-teacher", "bare-teacher"))


def measure(given: argparse.Namespace, held: ExitStack) -> TrainingReport:
    work = prepare_work(given, POLICY, K, held)
    report = begin_report(given, work)
    report.operations_per_step = training_operations(work.context)
    made = make_all(CONTENDERS, work, report)
    product = MatrixProduct(work.context)
    everyone = [(one.name, opened) for one, opened in made] + [(MATRIX, always(product))]
    turns = [Turn(name, threads, opened) for threads in _threads(work) for name, opened in everyone]
    taken = measure_turns(turns, report, work.context.device)
    for (name, threads), milliseconds in taken.items():
        if name == MATRIX:
            report.matrix.append(_rate(product, threads, milliseconds, report.settings.precision))
        else:
            report.timings.append(timing_of(name, threads, milliseconds, given.batch))
    report.ratios = report.ratios_of(RATIOS)
    report.shares = report.shares_of(("bare", "loop"))
    report.targets = _targets(report)
    report.load.append(load())
    return report


def _threads(work: Work) -> list[int]:
    """One and all cores; on a GPU torch's threads do nothing that takes time, and are left as kdaug sets them."""
    return [torch.get_num_threads()] if work.on_gpu else sorted({1, available_cores()})


def _rate(product: MatrixProduct, threads: int, milliseconds: Spread, precision: str) -> MatrixRate:
    teraflops = [product.operations / (one * 1e-3) / 1e12 for one in milliseconds.rounds]
    return MatrixRate(threads, product.side, precision, spread_of(teraflops))


def _targets(report: TrainingReport) -> list[Target]:
    targets = []
    for threads in report.threads():
        ratio = report.ratio("loop", "bare", threads)
        assert ratio is not None
        what = f"Speed of the whole loop against the bare step, torch's threads: {threads}"
        targets.append(Target(what, f"≥ {WANTED}×", ratio.value, ratio.value >= WANTED))
    return targets


if __name__ == "__main__":
    run_script(__doc__ or "", measure)
