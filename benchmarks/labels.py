"""Measures stored labels: their bytes, how fast they are read, and what a step and a sweep cost with them.

    python benchmarks/labels.py                       # a table on stdout, progress on stderr, 10 minutes on two cores
    python benchmarks/labels.py --json FILE           # and everything, round by round, in FILE

Steps take turns in one process, so that whatever else the machine does slows all of them alike. Reading is on one
thread. The sweep is real: nine students (three lambdas, three K) of the bundled images, once with the teacher beside
each and once from its labels, and every view that the teacher looks at is counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from kdaug import config
from kdaug.config import Network, Recipe
from kdaug.recipes import named_recipe
from kdaug.supervision import LabelStore, Teacher
from kdaug.supervision.label_store import (
    DatasetFingerprint,
    Manifest,
    epoch_files,
    make_records,
    write_clean,
    write_manifest,
    write_records,
)
from kdaug.training import train
from kdaug.training.labelling import LabelRequest, label_views
from training_benchmark.steps import WholeLoop
from training_benchmark.turns import Pace, Turn, take_turns
from training_benchmark.work import TEMPERATURE, Work, images_of, recipe_of, teacher_of, work_of
from views_benchmark.machine import load, this_machine
from views_benchmark.rounds import Spread, Task, spread_of
from views_benchmark.rounds import take_turns as take_image_turns

POLICY = "randaugment-n2-m5@paper-geometric"
CLASSES = 100
WEIGHTS, KS = (0.5, 1.0, 2.0), (1, 3, 5)
VALIDATION = 2000
"""Bundled images that a teacher is tried on whenever it is loaded."""


def store_of(folder: Path, views: int, k: int) -> LabelStore:
    """A store of one epoch with random answers to `views` views, in half precision, for one temperature besides 1."""
    subject = DatasetFingerprint(views, tuple(map(str, range(CLASSES))), "random", {})
    manifest = Manifest(subject, "random", k, (TEMPERATURE,), "float16")
    generator = torch.Generator().manual_seed(0)
    write_manifest(manifest, folder)
    for part in epoch_files(manifest, [0]):
        count = part.end - part.first
        chunks = [
            make_records(torch.randn(len(rows), CLASSES, generator=generator) * 4, rows % CLASSES, manifest)
            for rows in torch.arange(count).split(1 << 16)
        ]
        write_records(
            {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}, part, manifest, folder
        )
    write_clean(torch.zeros(views), manifest, folder)
    return LabelStore(folder, manifest)


def measure_bytes(folder: Path, views: int) -> list[dict[str, float]]:
    """Bytes a view on disk, beside 4 + 4 K + 4 for each temperature."""
    found = []
    for k in (5, 50):
        store = store_of(folder / f"bytes-{k}", views, k)
        size = sum(path.stat().st_size for path in store.folder.glob("epoch-*"))
        found.append({"k": k, "bytes_per_view": size / views, "wanted": 4 + 4 * k + 4})
    return found


def measure_reading(folder: Path, views: int, rounds: int) -> list[dict[str, Any]]:
    """Views a second on one thread, in batches in the random order of an epoch."""
    torch.set_num_threads(1)
    store = store_of(folder / "reading", views, 5)
    order = np.random.default_rng(0).permutation(views)
    cases = [(batch, reading) for batch in (128, 1024) for reading in ("renormalized", "grouped")]

    def read(batch: int, reading: Any) -> Callable[[], object]:
        settings = config.Supervision(k=5, temperature=TEMPERATURE, reading=reading)
        batches = np.split(order[: batch * 200], 200)
        return lambda: [store.answer(settings, 0, rows) for rows in batches]

    tasks = [Task(read(batch, reading), batch * 200) for batch, reading in cases]
    spreads = take_image_turns(tasks, rounds, 0.2, lambda number: print_line(f"reading, round {number} of {rounds}"))
    return [
        {
            "batch": batch,
            "reading": reading,
            "views_per_second": asdict(spread_of([1e6 / one for one in spread.rounds])),
        }
        for (batch, reading), spread in zip(cases, spreads, strict=True)
    ]


def measure_steps(given: argparse.Namespace, folder: Path, held: ExitStack) -> dict[str, Any]:
    """Milliseconds of a whole step without teacher, with its stored labels, and with the teacher itself."""
    recipe = recipe_of(given.network, given.batch, "cpu", False, POLICY, 5, folder)
    work = work_of(recipe, images_of(None), folder, held)
    store = store_of(folder / "steps", len(work.context.dataset.train), 5)  # one epoch is more than is run
    contenders: dict[str, Teacher | LabelStore | None] = {
        "without teacher": None,
        "stored labels": store,
        "online teacher": teacher_of(work.context),
    }
    turns = [_turn(work, name, teacher, given.threads) for name, teacher in contenders.items()]
    spreads = take_turns(turns, Pace(given.rounds, 2, given.steps), work.context.device, print_line)
    return {"milliseconds": {turn.name: asdict(spread) for turn, spread in zip(turns, spreads, strict=True)}} | {
        "factor": {turn.name: asdict(_factor(spread, spreads[0])) for turn, spread in zip(turns, spreads, strict=True)}
    }


def _turn(work: Work, name: str, teacher: Teacher | LabelStore | None, threads: int) -> Turn:
    loop = WholeLoop(work, name.replace(" ", "-"), teacher)
    return Turn(name, threads, loop.opened)


def _factor(spread: Spread, against: Spread) -> Spread:
    """Round by round, so that both were measured close together."""
    return spread_of([one / other for one, other in zip(spread.rounds, against.rounds, strict=True)])


@contextmanager
def counting_views() -> Iterator[list[int]]:
    """How many views any teacher looks at meanwhile, batch by batch."""
    counted: list[int] = []
    forward = Teacher.forward

    def counted_forward(teacher: Teacher, views: Tensor) -> Tensor:
        counted.append(len(views))
        return forward(teacher, views)

    with mock.patch.object(Teacher, "forward", counted_forward):
        yield counted


def measure_sweep(folder: Path, images: int, epochs: int) -> dict[str, Any]:
    """Nine students with the teacher beside each, and nine from its labels, labelling included."""
    base = named_recipe("demo")
    base = replace(
        base,
        data=replace(base.data, train_images=images),
        student=Network("wide_resnet10_1"),
        teacher=replace(base.teacher, network="wide_resnet16_1", epochs=1),
        optimization=replace(base.optimization, epochs=epochs),
        run=replace(base.run, threads=1, evaluate_every=epochs, dir=str(folder / "sweep" / "first")),
    )
    quiet = Console(quiet=True)
    label_views(base, folder / "sweep" / "untimed", LabelRequest(k=max(KS), epochs=(0, 1)))  # trains the teacher
    (teacher,) = (folder / "sweep" / "teachers").iterdir()
    base = replace(base, teacher=config.Teacher(source=f"run:{teacher}"))

    def students(kind: str, of: Recipe) -> None:
        for weight, k in product(WEIGHTS, KS):
            print_line(f"sweep, {kind}: lambda {weight}, K {k}")
            run = replace(of.run, dir=str(folder / "sweep" / f"{kind}-{weight}-{k}"))
            train(replace(of, run=run, supervision=replace(of.supervision, weight=weight, k=k)), quiet)

    with counting_views() as online:
        began = time.perf_counter()
        students("online", base)
        online_seconds = time.perf_counter() - began
    with counting_views() as stored:
        began = time.perf_counter()
        label_views(base, folder / "sweep" / "labels", LabelRequest(k=max(KS)))
        label_seconds = time.perf_counter() - began
        students("stored", replace(base, teacher=config.Teacher(labels=str(folder / "sweep" / "labels"))))
        stored_seconds = time.perf_counter() - began
    return {
        "students": len(WEIGHTS) * len(KS),
        "training_batches": images * epochs,
        "validation_images": VALIDATION,
        "views_seen_by_teacher": {"online": sum(online), "stored": sum(stored)},
        "seconds": {"online": online_seconds, "stored, labelling included": stored_seconds, "labelling": label_seconds},
    }


def print_line(text: str) -> None:
    print(text, file=sys.stderr)


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = ["bytes a view (wanted: at most 4 + 4 K + 4)"]
    lines += [f"  K {one['k']:>2}: {one['bytes_per_view']:.1f}, wanted {one['wanted']}" for one in report["bytes"]]
    lines += ["reading, views a second on one thread (wanted: 1 M)"]
    lines += [
        f"  batch {one['batch']:>4}, {one['reading']}: {one['views_per_second']['median'] / 1e6:.2f} M"
        for one in report["reading"]
    ]
    lines += ["a step, times one without teacher (stored, wanted: at most 1.03)"]
    lines += [f"  {name}: {spread['median']:.3f}" for name, spread in report["steps"]["factor"].items()]
    sweep = report["sweep"]
    lines += [f"sweep of {sweep['students']} students, {sweep['training_views']:,} views each"]
    lines += [f"  the teacher tried on {sweep['validation_images']:,} images whenever it is loaded, included below"]
    lines += [f"  {kind}: the teacher saw {views:,} views" for kind, views in sweep["views_seen_by_teacher"].items()]
    lines += [f"  {kind}: {seconds:.1f} s" for kind, seconds in sweep["seconds"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write everything there")
    parser.add_argument("--network", default="wide_resnet16_1")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for the steps")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=6, help="timed in every turn of a round")
    parser.add_argument("--views", type=int, default=1_000_000, help="in the store that is read")
    parser.add_argument("--sweep-images", type=int, default=2000)
    parser.add_argument("--sweep-epochs", type=int, default=2)
    given = parser.parse_args()
    before = load()
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="kdaug-bench-")))
        report: dict[str, Any] = {
            "machine": asdict(this_machine()),
            "load": before,
            "settings": {name: value for name, value in vars(given).items() if name != "json"},
            "bytes": measure_bytes(folder, min(given.views, 100_000)),
            "reading": measure_reading(folder, given.views, given.rounds),
            "steps": measure_steps(given, folder, held),
            "sweep": measure_sweep(folder, given.sweep_images, given.sweep_epochs),
        }
    if given.json:
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
