"""Filling a label store: the teacher looks once at every view that a recipe's students will see."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from kdaug.config import Recipe, check, read_recipe, to_yaml
from kdaug.data.loader import BatchKey, prefetch
from kdaug.errors import InputError
from kdaug.files import write_whole
from kdaug.philox import Stream, permutation
from kdaug.supervision import LabelStore, Teacher
from kdaug.supervision.answer import classes_asked
from kdaug.supervision.label_store import (
    MOST_CLASSES,
    Manifest,
    Part,
    StorePrecision,
    differences,
    empty_records,
    has_clean,
    parts_of,
    read_manifest,
    records_of,
    write_clean,
    write_manifest,
    write_part,
)
from kdaug.training.clean_labels import look_at_clean
from kdaug.training.distributed import joined
from kdaug.training.loop import find_teacher
from kdaug.training.optimization import autocast
from kdaug.training.progress import say, show_progress
from kdaug.training.resolving import resolve
from kdaug.training.setup import EVALUATION_BATCH, Setup, prepare
from kdaug.training.viewing import in_order_of_epoch, subject_of, views_of
from kdaug.views.policies import follows_epoch


@dataclass(frozen=True)
class Request:
    """What of the teacher's answers is to be kept, and of which epochs: first, end (not included), in turn or not.

    None: as the recipe's supervision says, and all epochs.
    """

    k: int | None = None
    temperatures: tuple[float, ...] | None = None
    precision: StorePrecision = "float16"
    epochs: tuple[int, int] | None = None
    cycle: bool = False


@dataclass(frozen=True)
class Verification:
    """What was seen when views were looked at again.

    views: how many. largest_error: of a stored log-probability against the new one of the same class. first_differs,
    top_differs: in how many views the first class, or the top k as a set, is another. changed: what is no longer what
    the manifest says, as "name: manifest's -> now".
    """

    views: int
    k: int
    largest_error: float
    first_differs: int
    top_differs: int
    changed: list[str]


def label(recipe: Recipe, folder: Path, request: Request) -> None:
    """Fills the label store in `folder` with the answers of the recipe's teacher, from where an earlier call stopped.

    A teacher that must be trained is trained first, as for training. Under torchrun all processes share the work.
    Raises InputError for what the user can mend.
    """
    with joined() as world:
        setup = prepare(resolve(recipe), Console(quiet=not world.first), world)
        _check(setup, request)
        teacher = find_teacher(setup, folder)
        manifest = manifest_of(setup, teacher_digest(teacher), request)
        world.told_by_first(lambda: _begin(setup, manifest, folder))
        _fill(setup, teacher, manifest, folder)
        setup.world.gather(None)  # nobody says that it is done before it is


def verify(folder: Path, views: int, root: str | None, device: str) -> Verification:
    """Has the teacher look again at some `views` of the store in `folder`, drawn from up to four of its epochs.

    `root` replaces the recipe's data.root. Raises InputError if the store, its data or its teacher cannot be had.
    """
    manifest, recipe = read_manifest(folder), read_recipe(folder / "recipe.yaml")
    data = replace(recipe.data, root=root or recipe.data.root)
    setup = prepare(check(replace(recipe, data=data, run=replace(recipe.run, device=device))), Console(stderr=True))
    teacher = find_teacher(setup, folder)
    changed = differences(replace(manifest, subject=subject_of(setup), teacher=teacher_digest(teacher)), manifest)
    changed = [f"{folder}: {difference}" for difference in changed]
    store, samples = LabelStore(folder, manifest), manifest.subject.samples
    if len(setup.dataset.train) != samples:
        raise InputError("; ".join(changed))
    epochs = np.unique(np.linspace(0, manifest.epochs - 1, 4).astype(int) + manifest.first_epoch).tolist()
    errors, first, top, seen = [0.0], 0, 0, 0
    for epoch in epochs:
        rows = np.sort(permutation(0, epoch, samples, Stream.SUBSET)[: -(-views // len(epochs))])
        for some, again in answers(setup, teacher, manifest, epoch, rows):
            stored = store.records(epoch, some)
            same = stored["classes"] == again["classes"]
            errors += (stored["logits"].float() - again["logits"].float())[same].abs().tolist()
            first += int((~same[:, 0]).sum())
            top += int((stored["classes"].sort(1).values != again["classes"].sort(1).values).any(1).sum())
            seen += len(some)
    return Verification(seen, manifest.k, max(errors), first, top, changed)


def teacher_digest(teacher: Teacher) -> str:
    """Differs when the teacher's weights, or how it gets its input, do."""
    outputs = None if teacher.outputs is None else teacher.outputs.tolist()  # the same on any device
    sha256 = hashlib.sha256(repr((teacher.input_format, outputs)).encode())
    for name, tensor in sorted(teacher.network.state_dict().items()):
        sha256.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()[:16]


def manifest_of(setup: Setup, teacher: str, request: Request) -> Manifest:
    """What a store of answers to the views of `setup` is, by the teacher with this digest."""
    supervision, (first, end) = setup.recipe.supervision, request.epochs or (0, setup.epochs)
    temperatures, classes = request.temperatures or (supervision.temperature,), len(setup.dataset.classes)
    return Manifest(
        subject=subject_of(setup),
        teacher=teacher,
        k=min(request.k or classes_asked(supervision, classes), classes),
        temperatures=tuple(sorted({t for t in temperatures if t != 1})),  # at 1 it is 0 by construction
        precision=request.precision,
        first_epoch=first,
        epochs=end - first,
        cycle=request.cycle,
    )


def _check(setup: Setup, request: Request) -> None:
    """InputError if this cannot be stored for the recipe."""
    (first, end), recipe = request.epochs or (0, setup.epochs), setup.recipe
    if not 0 <= first < end <= setup.epochs:
        raise InputError(f"epochs {first}:{end} are not among the recipe's, which are 0:{setup.epochs}")
    if request.k is not None and request.k < 1:
        raise InputError(f"--k is {request.k}, but must be at least 1")
    if any(not 0 < temperature < math.inf for temperature in request.temperatures or ()):
        raise InputError("--temperatures must be above 0")
    if request.cycle and recipe.optimization.clean_epochs:
        raise InputError("views that are used in turn cannot serve clean epochs; leave out --cycle or clean_epochs")
    if request.cycle and follows_epoch(recipe.views.policy):
        raise InputError(f"policy {recipe.views.policy} follows the epoch, so its views cannot be used in turn")
    if len(setup.dataset.classes) > MOST_CLASSES:
        raise InputError(f"a label store holds at most {MOST_CLASSES} classes")
    if recipe.teacher.source == "none":
        raise InputError(
            "teacher.source is none; name the teacher that is to look: train, run:DIR, file:PATH, timm:NAME"
        )
    if recipe.teacher.labels is not None:
        raise InputError("teacher.labels is given, but labels are to be made; leave it out")


def _fill(setup: Setup, teacher: Teacher, manifest: Manifest, folder: Path) -> None:
    """Writes every file of the store that is not there yet; the ranks of setup.world share them."""
    if not setup.world.told_by_first(lambda: has_clean(folder)):
        clean = look_at_clean(setup, teacher)
        setup.world.told_by_first(lambda: write_clean(clean, folder))
    mine = parts_of(manifest)[setup.world.rank :: setup.world.size]
    left = [part for part in mine if not part.is_written(folder)]
    with show_progress(setup.console) as bar:
        views = sum(part.end - part.first for part in left)
        task = bar.add_task("labelling", total=views, speed="", figures="")
        for part in left:
            write_part(_look(setup, teacher, manifest, part, partial(bar.advance, task)), part, folder)


def _begin(setup: Setup, manifest: Manifest, folder: Path) -> None:
    if (folder / "manifest.json").is_file():
        changed = differences(read_manifest(folder), manifest)
        if changed:
            raise InputError(f"{folder} is a store of something else ({'; '.join(changed)}); choose another folder")
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not a label store; choose another folder")
    say(
        setup.console,
        f"{folder}: {manifest.bytes_per_view} bytes a view, {manifest.subject.samples:,} images, {manifest.epochs} "
        f"epoch(s): {manifest.size / 1e6:,.1f} MB",
    )
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < manifest.size:
        raise InputError(f"{folder}: the disk has no {manifest.size / 1e6:,.1f} MB left; store fewer epochs or classes")
    write_whole(folder / "recipe.yaml", to_yaml(setup.recipe))
    write_manifest(manifest, folder)


def _look(
    setup: Setup, teacher: Teacher, manifest: Manifest, part: Part, advance: Callable[[int], None]
) -> dict[str, Tensor]:
    """The records of a part."""
    records = empty_records(part.end - part.first, manifest)
    for batch, found in answers(setup, teacher, manifest, part.epoch, np.arange(part.first, part.end)):
        rows = torch.from_numpy(batch - part.first)
        for name, value in found.items():
            records[name][rows] = value
        advance(len(rows))
    return records


def answers(
    setup: Setup, teacher: Teacher, manifest: Manifest, epoch: int, rows: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """Records of images `rows` as seen in `epoch`, batch by batch with the rows they are of; without the unreadable."""
    if setup.mixes(epoch):  # partners follow each other in the epoch's order, so that few are made twice
        rows = in_order_of_epoch(setup, epoch, rows)
    batches = np.array_split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))
    keys = (BatchKey(step, epoch, indices, epoch) for step, indices in enumerate(batches))
    with closing(prefetch(views_of(setup, keys, replace_unreadable=False))) as looks:
        for viewed in looks:
            seen = viewed.to(setup.device)
            with torch.no_grad(), autocast(setup.device, setup.precision):
                logits = teacher(seen.pixels)
            yield seen.key.indices, records_of(logits, seen.labels, manifest)
