"""Measures how fast views are made, beside the libraries that do the same.

    python benchmarks/views.py                                  # Markdown on stdout, progress on stderr, 5 minutes
    python benchmarks/views.py --json FILE                      # and everything, round by round, in FILE
    python benchmarks/views.py --table FILE                     # the Markdown of such a file, nothing measured
    python benchmarks/views.py --only ours,torchvision,ops      # some contenders and sections only

RandAugment (N=2, M=9) as torchvision has it, at 32 and 224 pixels, nearest and bilinear. All contenders take turns in
one process, so that whatever else the machine does slows all of them alike. Peers that are not installed are reported
as missing; `pip install -e '.[bench]'` installs them.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import kdaug
from kdaug.views.plan import Resample
from views_benchmark.contenders import CONTENDERS, POLICY, Contender, pillow_views, policy_with
from views_benchmark.machine import load, this_machine, two_threads_gain
from views_benchmark.markdown import as_markdown
from views_benchmark.ops import op_timings
from views_benchmark.peers import Work, on_one_thread
from views_benchmark.photos import COUNTS, Photos, photos
from views_benchmark.processes import peak_memory, starts
from views_benchmark.report import Batch, Entrant, Report, Timing
from views_benchmark.rounds import Task, spread_of, take_turns
from views_benchmark.targets import targets_of

SECTIONS = ("ops", "start", "memory")
FILTERS: tuple[Resample, ...] = ("nearest", "bilinear")
ROUNDS = 15
SECONDS = 180.0
OPS_SHARE = 0.2  # of the seconds; the contenders take the rest


def main() -> None:
    given = _arguments()
    if given.table:
        print(as_markdown(Report.read(given.table)), end="")
        return
    chosen = given.only or [contender.name for contender in CONTENDERS] + list(SECTIONS)
    report = measure(chosen, given.seconds, given.data)
    if given.json:
        report.write(given.json)
    print(as_markdown(report), end="")


def measure(chosen: list[str], seconds: float, folder: Path | None) -> Report:
    """Measures `chosen`, contenders and sections by name, in about `seconds` besides starts and compilation."""
    batches = [photos(size, folder) for size in COUNTS]
    report = Report(POLICY, this_machine(), [Batch(one.size, len(one.images), one.source) for one in batches], [load()])
    if "start" in chosen:  # before anything else: no library of a peer is in memory yet
        report.starts = starts(_say)
    if "memory" in chosen:
        _say("peak memory")
        report.memory = peak_memory()
    on_one_thread()
    _measure_contenders(report, [one for one in CONTENDERS if one.name in chosen], batches, seconds * (1 - OPS_SHARE))
    if "ops" in chosen:
        for one in batches:
            share = seconds * OPS_SHARE / len(batches)
            copying, timings = op_timings(one, ROUNDS, share, _counting(f"{one.size} px, op by op"))
            report.copying.append(copying)
            report.ops += timings
    report.targets = targets_of(report)
    report.load.append(load())
    return report


def _measure_contenders(report: Report, chosen: list[Contender], batches: list[Photos], seconds: float) -> None:
    settings = [Work(one.images, filter) for one in batches for filter in FILTERS]
    missing: dict[str, str] = {}
    gains: list[float] = []
    for work in settings:
        _check_against_pillow(work)
        size = work.images.shape[1]
        gains += two_threads_gain()
        tasks = _tasks(chosen, work, missing)
        slot = seconds / (len(settings) * ROUNDS * max(len(tasks), 1))
        taken = take_turns(list(tasks.values()), ROUNDS, slot, _counting(f"{size} px, {work.filter}"))
        report.timings += [Timing(name, size, work.filter, spread) for name, spread in zip(tasks, taken, strict=True)]
    report.two_threads = spread_of(gains)
    report.entrants = [Entrant(one.name, one.label, one.differs, missing.get(one.name)) for one in chosen]


def _tasks(chosen: list[Contender], work: Work, missing: dict[str, str]) -> dict[str, Task]:
    tasks = {}
    for contender in chosen:
        try:
            tasks[contender.name] = Task(contender.make(work), len(work.images))
        except ImportError as error:
            missing[contender.name] = str(error).partition("\n")[0]
            _say(f"{contender.name} is missing: {missing[contender.name]}")
    return tasks


def _check_against_pillow(work: Work) -> None:
    """What is fast must also be right: ours makes Pillow's bytes of these very images."""
    size, count = work.images.shape[1:3], len(work.images)
    plan = policy_with(work.filter).plan(0, 0, np.arange(count), size)
    views, view_of = kdaug.apply(work.images, plan), pillow_views().view_of
    for row, image in enumerate(work.images):
        if not np.array_equal(views[row], view_of(image, plan, row)):
            sys.exit(f"benchmarks/views.py: image {row} differs from Pillow's; run the tests first")


def _say(what: str) -> None:
    print(f"[{time.perf_counter() - _BEGIN:4.0f} s] {what}", file=sys.stderr, flush=True)


def _counting(what: str) -> Callable[[int], None]:
    return lambda number: _say(f"{what}: round {number} of {ROUNDS}")


def _arguments() -> argparse.Namespace:
    known = [contender.name for contender in CONTENDERS] + list(SECTIONS)

    def names(text: str) -> list[str]:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
        return text.split(",")

    folder = os.environ.get("KDAUG_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured to FILE")
    parser.add_argument("--only", type=names, metavar="NAME,...", help=f"of {', '.join(known)}")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for the rounds (default: %(default)g)")
    parser.add_argument(
        "--data",
        type=Path,
        default=Path(folder) if folder else None,
        help="folder with CIFAR-100 and imagenette-small (default: $KDAUG_DATA; without it, the bundled images)",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the Markdown of FILE and measure nothing")
    return parser.parse_args()


_BEGIN = time.perf_counter()

if __name__ == "__main__":
    main()
