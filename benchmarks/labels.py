"""Measures stored soft labels: their size, how fast they are read, and the time of a step and of a sweep with them.

    python benchmarks/labels.py                       # a table on stdout, progress on stderr, 10 minutes on two cores
    python benchmarks/labels.py --json FILE           # also writes all rounds to FILE

The contenders of a step run in every round, in one process, so that other load on the machine slows all alike. Reading
uses one thread. The sweep trains nine students (three λ, three K) on bundled images twice, with an online teacher and
with stored labels, and counts the views that go through the teacher.
"""

from __future__ import annotations

import argparse
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

from harness.machine import load_average, this_machine
from harness.progress import print_progress
from harness.report import write_json
from harness.rounds import ImageTask, divide_rounds, spread_of, time_images
from harness.script import positive_int, script_parser
from kdaug import config
from kdaug.config import Network, Recipe
from kdaug.recipes import named_recipe
from kdaug.supervision import LabelStore, SoftLabelSource, StoredSoftLabels, Teacher
from kdaug.supervision.manifest import DatasetFingerprint, Manifest, write_manifest
from kdaug.supervision.records import epoch_files, make_records, write_records, write_unaugmented_label_log_probs
from kdaug.training import train
from kdaug.training.labeling import LabelRequest, label_views
from training_benchmark.steps import TrainLoop, online_soft_labels
from training_benchmark.turns import Pace, Turn, run_turns
from training_benchmark.workload import TEMPERATURE, bench_recipe, load_images, prepare_workload

POLICY = "randaugment-n2-m5@paper-geometric"
CLASSES = 100
WEIGHTS, KS = (0.5, 1.0, 2.0), (1, 3, 5)
VALIDATION = 2000
"""Bundled images that a teacher is evaluated on whenever it is loaded."""
CHUNK = 1 << 16


def random_store(folder: Path, views: int, k: int) -> LabelStore:
    """A store with random predictions in float16 for `views` views of one epoch, which is used in every epoch."""
    dataset = DatasetFingerprint(views, tuple(map(str, range(CLASSES))), "random", {})
    manifest = Manifest(dataset, "random", k, (TEMPERATURE,), "float16", cycle=1)
    generator = torch.Generator().manual_seed(0)
    write_manifest(manifest, folder)
    for part in epoch_files(manifest, [0]):
        chunks = []
        for first in range(part.first, part.end, CHUNK):
            labels = torch.arange(first, min(first + CHUNK, part.end)) % CLASSES
            chunks.append(make_records(torch.randn(len(labels), CLASSES, generator=generator) * 4, labels, manifest))
        records = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
        write_records(records, part, manifest, folder)
    write_unaugmented_label_log_probs(torch.zeros(views), manifest, folder)
    return LabelStore(folder, manifest)


def measure_bytes(folder: Path, views: int) -> list[dict[str, float]]:
    """Bytes per view on disk, and the target: 4 + 4 K, and 4 for each temperature."""
    sizes = []
    for k in (5, 50):
        store = random_store(folder / f"bytes-{k}", views, k)
        size = sum(path.stat().st_size for path in store.folder.glob("epoch-*"))
        sizes.append({"k": k, "bytes_per_view": size / views, "wanted": 4 + 4 * k + 4})
    return sizes


def measure_reading(folder: Path, views: int, rounds: int) -> list[dict[str, Any]]:
    """Views per second on one thread, in batches in random order."""
    torch.set_num_threads(1)
    store = random_store(folder / "reading", views, 5)
    order = np.random.default_rng(0).permutation(views)
    cases = [(batch, reading) for batch in (128, 1024) for reading in ("renormalized", "grouped")]

    def read(batch: int, reading: Any) -> Callable[[], object]:
        settings = config.Supervision(k=5, temperature=TEMPERATURE, reading=reading)
        batches = np.split(order[: batch * 200], 200)
        return lambda: [store.soft_labels(settings, 0, indices) for indices in batches]

    tasks = [ImageTask(read(batch, reading), batch * 200) for batch, reading in cases]
    spreads = time_images(tasks, rounds, 0.2, "reading, ")
    speeds = [asdict(spread_of([1e6 / value for value in spread.rounds])) for spread in spreads]
    return [
        {"batch": batch, "reading": reading, "views_per_second": speed}
        for (batch, reading), speed in zip(cases, speeds, strict=True)
    ]


def measure_steps(args: argparse.Namespace, folder: Path, resources: ExitStack) -> dict[str, Any]:
    """Milliseconds per step of the training loop without a teacher, with stored labels and with an online teacher."""
    recipe = bench_recipe(args.network, args.batch, POLICY, 5, folder)
    workload = prepare_workload(recipe, load_images(None), folder, resources)
    context = workload.context
    store = random_store(folder / "steps", len(context.dataset.train), 5)
    sources: dict[str, SoftLabelSource | None] = {
        "without teacher": None,
        "stored labels": StoredSoftLabels(store, context.recipe.supervision),
        "online teacher": online_soft_labels(context),
    }
    loops = {name: TrainLoop(workload, name.replace(" ", "-"), source) for name, source in sources.items()}
    turns = [Turn(name, args.threads, loop.open_step) for name, loop in loops.items()]
    measured = run_turns(turns, Pace(args.rounds, 2, args.steps), context.device)
    spreads = {name: spread for (name, _), spread in measured.items()}
    baseline = spreads["without teacher"]
    return {
        "milliseconds": {name: asdict(spread) for name, spread in spreads.items()},
        "factor": {name: asdict(divide_rounds(spread, baseline)) for name, spread in spreads.items()},
    }


@contextmanager
def count_teacher_views() -> Iterator[list[int]]:
    """Collects the batch sizes of all forward passes of teachers."""
    counts: list[int] = []
    forward = Teacher.forward

    def counting_forward(teacher: Teacher, views: Tensor) -> Tensor:
        counts.append(len(views))
        return forward(teacher, views)

    with mock.patch.object(Teacher, "forward", counting_forward):
        yield counts


def sweep_recipe(folder: Path, images: int, epochs: int) -> Recipe:
    """The recipe of the students; its teacher is trained here."""
    demo = named_recipe("demo")
    recipe = replace(
        demo,
        data=replace(demo.data, train_images=images),
        student=Network("wide_resnet10_1"),
        teacher=replace(demo.teacher, network="wide_resnet16_1", epochs=1),
        optimization=replace(demo.optimization, epochs=epochs),
        run=replace(demo.run, threads=1, evaluate_every=epochs, dir=str(folder / "first")),
    )
    label_views(recipe, folder / "untimed", LabelRequest(k=max(KS), epochs=(0, 1)))  # trains the teacher
    (teacher,) = (folder / "teachers").iterdir()
    return replace(recipe, teacher=config.Teacher(source=f"run:{teacher}"))


def train_students(recipe: Recipe, folder: Path, kind: str) -> None:
    """Trains a student for each λ and K."""
    for weight, k in product(WEIGHTS, KS):
        print_progress(f"sweep, {kind}: λ {weight}, K {k}")
        run = replace(recipe.run, dir=str(folder / f"{kind}-{weight}-{k}"))
        supervision = replace(recipe.supervision, weight=weight, k=k)
        train(replace(recipe, run=run, supervision=supervision), Console(quiet=True))


def measure_sweep(folder: Path, images: int, epochs: int) -> dict[str, Any]:
    """Seconds and teacher views of a sweep with an online teacher, and with stored labels, including labeling."""
    recipe, labels = sweep_recipe(folder, images, epochs), folder / "labels"
    with count_teacher_views() as online:
        start = time.perf_counter()
        train_students(recipe, folder, "online")
        online_seconds = time.perf_counter() - start
    with count_teacher_views() as stored:
        start = time.perf_counter()
        label_views(recipe, labels, LabelRequest(k=max(KS)))
        label_seconds = time.perf_counter() - start
        train_students(replace(recipe, teacher=config.Teacher(labels=str(labels))), folder, "stored")
        stored_seconds = time.perf_counter() - start
    return {
        "students": len(WEIGHTS) * len(KS),
        "training_views": images * epochs,
        "validation_images": VALIDATION,
        "views_seen_by_teacher": {"online": sum(online), "stored": sum(stored)},
        "seconds": {"online": online_seconds, "stored, labeling included": stored_seconds, "labeling": label_seconds},
    }


def format_report(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = ["bytes per view (target: at most 4 + 4 K + 4)"]
    lines += [f"  K {one['k']:>2}: {one['bytes_per_view']:.1f}, target {one['wanted']}" for one in report["bytes"]]
    lines += ["reading on one thread, views per second (target: 1 M)"]
    lines += [
        f"  batch {one['batch']:>4}, {one['reading']}: {one['views_per_second']['median'] / 1e6:.2f} M"
        for one in report["reading"]
    ]
    lines += ["time of a step relative to one without a teacher (target for stored labels: at most 1.03)"]
    lines += [f"  {name}: {spread['median']:.3f}" for name, spread in report["steps"]["factor"].items()]
    sweep = report["sweep"]
    lines += [f"sweep of {sweep['students']} students with {sweep['training_views']:,} views each"]
    lines += [f"  views through the teacher, with {sweep['validation_images']:,} validation images per load"]
    lines += [f"    {kind}: {views:,}" for kind, views in sweep["views_seen_by_teacher"].items()]
    lines += [f"  {kind}: {seconds:.1f} s" for kind, seconds in sweep["seconds"].items()]
    return "\n".join(lines)


def main() -> None:
    parser = script_parser(__doc__ or "")
    parser.add_argument("--network", default="wide_resnet16_1", help="default: %(default)s")
    parser.add_argument("--batch", type=positive_int, default=128, help="images per step (default: %(default)s)")
    parser.add_argument(
        "--threads", type=positive_int, default=1, help="torch threads of a step (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=positive_int, default=11, help="default: %(default)s")
    parser.add_argument("--steps", type=positive_int, default=6, help="timed steps per turn (default: %(default)s)")
    parser.add_argument(
        "--views", type=positive_int, default=1_000_000, help="views in the store (default: %(default)s)"
    )
    parser.add_argument("--sweep-images", type=positive_int, default=2000, help="default: %(default)s")
    parser.add_argument("--sweep-epochs", type=positive_int, default=2, help="default: %(default)s")
    args = parser.parse_args()
    load = load_average()
    with ExitStack() as resources:
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="kdaug-bench-")))
        report: dict[str, Any] = {
            "machine": asdict(this_machine()),
            "load": load,
            "settings": {name: value for name, value in vars(args).items() if name != "json"},
            "bytes": measure_bytes(folder, min(args.views, 100_000)),
            "reading": measure_reading(folder, args.views, args.rounds),
            "steps": measure_steps(args, folder, resources),
            "sweep": measure_sweep(folder / "sweep", args.sweep_images, args.sweep_epochs),
        }
    if args.json:
        write_json(args.json, report)
    print(format_report(report))


if __name__ == "__main__":
    main()
