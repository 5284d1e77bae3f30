"""Measures the speed of making views, and compares it with other augmentation libraries.

    python benchmarks/views.py                                  # Markdown on stdout, progress on stderr, 5 minutes
    python benchmarks/views.py --json FILE                      # also writes all rounds to FILE
    python benchmarks/views.py --table FILE                     # prints the Markdown of FILE without measuring
    python benchmarks/views.py --only ours,torchvision,ops      # some contenders and sections only

The policy is torchvision's RandAugment (N=2, M=9), at 32 and 224 pixels, nearest and bilinear. All contenders run in
every round, in one process, so that other load on the machine slows all alike. Peers that are not installed are
reported as missing; `pip install -e '.[bench]'` installs them.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import kdaug
from harness.contenders import Contender, contender_records, make_installed
from harness.machine import load_average, this_machine
from harness.rounds import ImageTask, spread_of, time_images
from harness.script import Benchmark, report_parser, run_benchmark
from kdaug.views.plan import Resample
from views_benchmark.contenders import CONTENDERS, POLICY, pillow_views, policy_with
from views_benchmark.markdown import views_markdown
from views_benchmark.ops import measure_ops
from views_benchmark.peers import Run, ViewWorkload, use_one_thread
from views_benchmark.photos import COUNTS, Photos, load_photos
from views_benchmark.processes import measure_memory, measure_starts
from views_benchmark.report import Batch, Timing, ViewsReport
from views_benchmark.targets import views_targets
from views_benchmark.threads import two_threads_gain

SECTIONS = ("ops", "start", "memory")
NAMES = (*(contender.name for contender in CONTENDERS), *SECTIONS)
FILTERS: tuple[Resample, ...] = ("nearest", "bilinear")
PACKAGES = ("llvmlite", "kornia", "albumentationsx", "opencv-python-headless", "nvidia-dali-cuda130")
ROUNDS = 15
SECONDS = 180.0
OPS_SHARE = 0.2  # of SECONDS; the contenders take the rest


def measure(args: argparse.Namespace) -> ViewsReport:
    """Measures the contenders and sections of --only, in about --seconds plus start-up and compilation."""
    photo_sets = [load_photos(size, args.data) for size in COUNTS]
    batches = [Batch(photos.size, len(photos.images), photos.source) for photos in photo_sets]
    report = ViewsReport(machine=this_machine(PACKAGES), load=[load_average()], policy=POLICY, batches=batches)
    if "start" in args.only:  # first, while no library of a peer is in memory
        report.starts = measure_starts()
    if "memory" in args.only:
        report.memory = measure_memory()
    use_one_thread()
    contenders = [one for one in CONTENDERS if one.name in args.only]
    _measure_contenders(report, contenders, photo_sets, args.seconds * (1 - OPS_SHARE))
    if "ops" in args.only:
        for photos in photo_sets:
            copying, timings = measure_ops(photos, ROUNDS, args.seconds * OPS_SHARE / len(photo_sets))
            report.copying.append(copying)
            report.ops += timings
    report.load.append(load_average())
    return report


def _measure_contenders(
    report: ViewsReport, contenders: list[Contender[ViewWorkload, Run]], photo_sets: list[Photos], seconds: float
) -> None:
    workloads = [ViewWorkload(photos.images, filter) for photos in photo_sets for filter in FILTERS]
    missing: dict[str, str] = {}
    gains: list[float] = []
    for workload in workloads:
        _check_against_pillow(workload)
        gains += two_threads_gain()
        runs = make_installed(contenders, workload, missing)
        tasks = [ImageTask(run, len(workload.images)) for run in runs.values()]
        size, filter = workload.images.shape[1], workload.filter
        share = seconds / (len(workloads) * ROUNDS * max(len(tasks), 1))
        spreads = time_images(tasks, ROUNDS, share, f"{size} px, {filter}, ")
        report.timings += [Timing(name, size, filter, spread) for name, spread in zip(runs, spreads, strict=True)]
    report.two_threads = spread_of(gains)
    report.entrants = contender_records(contenders, missing)


def _check_against_pillow(workload: ViewWorkload) -> None:
    """Exits if kdaug's views of these images differ from Pillow's."""
    size, count = workload.images.shape[1:3], len(workload.images)
    plan = policy_with(workload.filter).plan(0, 0, np.arange(count), size)
    views, view_of = kdaug.apply(workload.images, plan), pillow_views().view_of
    for row, image in enumerate(workload.images):
        if not np.array_equal(views[row], view_of(image, plan, row)):
            sys.exit(f"benchmarks/views.py: the view of image {row} differs from Pillow's; run the tests first")


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; choose from {', '.join(NAMES)}")
    return names


def main() -> None:
    parser = report_parser(
        __doc__ or "", "folder with CIFAR-100 and imagenette-small (default: $KDAUG_DATA; without it, bundled images)"
    )
    parser.add_argument(
        "--only", type=_names, default=list(NAMES), metavar="NAME,...", help=f"from {', '.join(NAMES)} (default: all)"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time for all rounds (default: %(default)g)")
    run_benchmark(Benchmark(ViewsReport, CONTENDERS, measure, views_targets, views_markdown), parser)


if __name__ == "__main__":
    main()
