"""What the scripts share: their flags, and from networks and data to a report."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from kdaug.errors import InputError
from training_benchmark.markdown import as_markdown
from training_benchmark.report import Settings, Timing, TrainingReport
from training_benchmark.turns import Contender, Opening, Pace, Turn, take_turns
from training_benchmark.work import Work, images_of, recipe_of, work_of
from views_benchmark.machine import load, this_machine, version_of
from views_benchmark.report import Entrant, Machine
from views_benchmark.rounds import Spread

ROUNDS = 5
NETWORKS = {"cuda": "wide_resnet28_10", "cpu": "wide_resnet16_1"}
STEPS = {"cuda": 100, "cpu": 8}
UNTIMED = {"cuda": 20, "cpu": 2}
"""On a GPU a step may be quicker than a batch's views, and what lies ready has to be used up before time counts."""
_PACKAGES = ("kdaug", "numpy", "numba", "pillow", "torch", "torchvision", "timm")


def run_script(description: str, measure: Callable[[argparse.Namespace, ExitStack], TrainingReport]) -> None:
    """Reads the flags and prints the Markdown of what `measure` finds, or of the file that --table names."""
    given = _arguments(description)
    if given.table:
        print(as_markdown(TrainingReport.read(given.table)), end="")
        return
    try:
        with ExitStack() as held:
            report = measure(given, held)
    except InputError as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        sys.exit(2)
    if given.json:
        report.write(given.json)
    print(as_markdown(report), end="")


def prepare_work(given: argparse.Namespace, policy: str, k: int, held: ExitStack) -> Work:
    """What `given` asks for, made ready, under `policy` and with the teacher's `k` top classes."""
    folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kdaug-bench-")))
    recipe = recipe_of(given.network, given.batch, given.device, given.compile, policy, k, folder)
    return work_of(recipe, images_of(given.data), folder, held)


def begin_report(given: argparse.Namespace, work: Work, packages: Sequence[str] = ()) -> TrainingReport:
    """A report with all that is known before anything is measured; `packages`: further ones whose version counts."""
    context = work.context
    settings = Settings(
        device=torch.cuda.get_device_name(context.device) if work.on_gpu else "cpu",
        network=given.network,
        teacher=f"{given.network} with other weights (random, as the student's at the start)",
        batch=given.batch,
        precision=str(context.precision).removeprefix("torch."),
        policy=context.recipe.views.policy,
        images=work.source,
        compiled=given.compile,
        default_threads=torch.get_num_threads(),
        rounds=given.rounds,
        untimed=UNTIMED[context.device.type],
        steps=given.steps,
    )
    return TrainingReport(settings, _with_versions(this_machine(), (*_PACKAGES, *packages)), [load()])


def make_all(contenders: Sequence[Contender], work: Work, report: TrainingReport) -> list[tuple[Contender, Opening]]:
    """Every contender whose needs are met, made ready; all of them become entrants of `report`."""
    made = []
    for contender in contenders:
        missing = None
        try:
            print_line(f"making ready: {contender.label}")
            made.append((contender, contender.make(work)))
        except ImportError as error:
            missing = str(error).partition("\n")[0]
            print_line(f"{contender.label} is missing: {missing}")
        report.entrants.append(Entrant(contender.name, contender.label, contender.differs, missing))
    return made


def measure_turns(turns: Sequence[Turn], report: TrainingReport, device: torch.device) -> dict[tuple[str, int], Spread]:
    """Milliseconds per step of all `turns`, by name and threads."""
    settings = report.settings
    taken = take_turns(turns, Pace(settings.rounds, settings.untimed, settings.steps), device, print_line)
    return {(turn.name, turn.threads): spread for turn, spread in zip(turns, taken, strict=True)}


def timing_of(name: str, threads: int, milliseconds: Spread, batch: int) -> Timing:
    return Timing(name, threads, milliseconds, float(f"{1e3 * batch / milliseconds.median:.5g}"))


def print_line(what: str) -> None:
    """One line of progress on stderr."""
    print(f"[{time.perf_counter() - _BEGIN:4.0f} s] {what}", file=sys.stderr, flush=True)


def _with_versions(machine: Machine, packages: Sequence[str]) -> Machine:
    return replace(machine, versions={package: version_of(package) for package in packages})


def _arguments(description: str) -> argparse.Namespace:
    folder = os.environ.get("KDAUG_DATA")
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the Markdown of FILE and measure nothing")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument("--network", help=f"of timm or kdaug (default: {_by_device(NETWORKS)})")
    parser.add_argument("--batch", type=_count, default=128, help="images per step (default: %(default)s)")
    parser.add_argument("--steps", type=_count, help=f"timed steps per turn (default: {_by_device(STEPS)})")
    parser.add_argument("--rounds", type=_count, default=ROUNDS, help="turns of each (default: %(default)s)")
    parser.add_argument("--compile", action="store_true", help="compile the networks with torch.compile")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(folder) if folder else None,
        help="folder that holds CIFAR-100 (default: $KDAUG_DATA; without it, random images)",
    )
    given = parser.parse_args()
    given.network = given.network or NETWORKS[given.device]
    given.steps = given.steps or STEPS[given.device]
    return given


def _by_device(values: Mapping[str, object]) -> str:
    return ", ".join(f"{value} on {device}" for device, value in values.items())


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


_BEGIN = time.perf_counter()
