"""What the scripts of the training benchmarks share: flags, and the way from networks and data to a report."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from harness.contenders import Contender, contender_records, make_installed
from harness.machine import load_average, this_machine
from harness.report import Target
from harness.script import Benchmark, positive_int, report_parser, run_benchmark
from kdaug.config.datasets import DEFAULT_IMAGE_SIZE
from training_benchmark.markdown import training_markdown
from training_benchmark.report import Settings, TrainingReport
from training_benchmark.turns import OpenStep, Pace
from training_benchmark.workload import TrainWorkload, bench_recipe, load_images, load_photos, prepare_workload

TrainContender = Contender[TrainWorkload, OpenStep]

ROUNDS = 5
NETWORKS = {"cuda": "wide_resnet28_10", "cpu": "wide_resnet16_1"}
STEPS = {"cuda": 100, "cpu": 8}
UNTIMED = {"cuda": 20, "cpu": 2}
"""On a GPU a step may be faster than the views of a batch; the warm-up must use up the batches made ahead."""


def run_training_benchmark(
    description: str,
    contenders: Sequence[TrainContender],
    measure: Callable[[argparse.Namespace, ExitStack], TrainingReport],
    targets: Callable[[TrainingReport], list[Target]],
) -> None:
    """The main function of a script. `measure` may use the ExitStack until all is measured."""

    def measure_in(args: argparse.Namespace) -> TrainingReport:
        args.network = args.network or NETWORKS[args.device]
        args.steps = args.steps or STEPS[args.device]
        with ExitStack() as resources:
            return measure(args, resources)

    benchmark = Benchmark(TrainingReport, contenders, measure_in, targets, training_markdown)
    run_benchmark(benchmark, _parser(description))


def workload_of(args: argparse.Namespace, policy: str, k: int, resources: ExitStack) -> TrainWorkload:
    """The workload that the flags describe, with `policy` and the teacher's top `k` classes."""
    folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="kdaug-bench-")))
    recipe = bench_recipe(args.network, args.batch, policy, k, folder, args.device, args.compile, args.cuda_graphs)
    return prepare_workload(recipe, load_images(args.data, args.image_size), folder, resources)


def photos_workload_of(args: argparse.Namespace, policy: str, k: int, resources: ExitStack) -> TrainWorkload:
    """The workload that the flags describe, on JPEG files that are decoded during training."""
    folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="kdaug-bench-")))
    images, data = load_photos(folder / "photos", args.image_size or DEFAULT_IMAGE_SIZE)
    recipe = bench_recipe(
        args.network, args.batch, policy, k, folder, args.device, args.compile, args.cuda_graphs, data
    )
    return prepare_workload(recipe, images, folder, resources)


def start_report(args: argparse.Namespace, workload: TrainWorkload, packages: Sequence[str] = ()) -> TrainingReport:
    """A report with everything that is known before measuring; `packages`: more packages whose versions matter."""
    context = workload.context
    settings = Settings(
        device=torch.cuda.get_device_name(context.device) if workload.on_gpu else "cpu",
        network=args.network,
        teacher=f"{args.network} with random weights, other than the student's",
        batch=args.batch,
        precision=str(context.precision).removeprefix("torch."),
        policy=context.recipe.views.policy,
        images=workload.source,
        compiled=args.compile or args.cuda_graphs,
        default_threads=torch.get_num_threads(),
        rounds=args.rounds,
        untimed=UNTIMED[context.device.type],
        steps=args.steps,
        cuda_graphs=args.cuda_graphs,
    )
    return TrainingReport(machine=this_machine(packages), load=[load_average()], settings=settings)


def make_contenders(
    contenders: Sequence[TrainContender], workload: TrainWorkload, report: TrainingReport
) -> dict[str, OpenStep]:
    """The steps of all contenders that are installed, by name. Adds all contenders to `report`."""
    missing: dict[str, str] = {}
    made = make_installed(contenders, workload, missing)
    report.entrants = contender_records(contenders, missing)
    return made


def pace_of(report: TrainingReport) -> Pace:
    return Pace(report.settings.rounds, report.settings.untimed, report.settings.steps)


def _parser(description: str) -> argparse.ArgumentParser:
    parser = report_parser(description, "folder with CIFAR-100 (default: $KDAUG_DATA; without it, random images)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--network", help=f"a network of timm or kdaug (default: {_by_device(NETWORKS)})")
    parser.add_argument("--image-size", type=positive_int, help="height and width of random images instead of CIFAR")
    parser.add_argument("--batch", type=positive_int, default=128, help="images per step (default: %(default)s)")
    parser.add_argument("--steps", type=positive_int, help=f"timed steps per turn (default: {_by_device(STEPS)})")
    parser.add_argument("--rounds", type=positive_int, default=ROUNDS, help="default: %(default)s")
    parser.add_argument("--compile", action="store_true", help="compile the networks with torch.compile")
    parser.add_argument("--cuda-graphs", action="store_true", help="compile them, and replay CUDA graphs")
    return parser


def _by_device(values: Mapping[str, object]) -> str:
    return ", ".join(f"{value} on {device}" for device, value in values.items())
