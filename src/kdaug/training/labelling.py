"""Filling a label store: the teacher looks once at every view that a recipe's students will see."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
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
    NoManifest,
    Part,
    StorePrecision,
    differences,
    empty_records,
    has_clean,
    is_foreign,
    parts_of,
    read_manifest,
    records_of,
    stored_epochs,
    write_clean,
    write_manifest,
    write_part,
)
from kdaug.training.clean_labels import look_at_clean
from kdaug.training.distributed import joined
from kdaug.training.holding import hold
from kdaug.training.loop import find_teacher
from kdaug.training.optimization import autocast
from kdaug.training.progress import say, show_progress
from kdaug.training.resolving import resolve, teacher_recipe
from kdaug.training.run_directory import RunDirectory
from kdaug.training.setup import EVALUATION_BATCH, Setup, prepare
from kdaug.training.viewing import in_order_of_epoch, subject_of, views_of
from kdaug.views.policies import follows_epoch

TOLERANCE = {"float32": 0.02, "bfloat16": 0.5, "float16": 0.1}
"""How far a log-probability may differ when a teacher that computes in this type looks again, besides a thousandth."""


@dataclass(frozen=True)
class Request:
    """What of the teacher's answers is to be kept, and of which epochs: first, end (not included).

    None: as the recipe's supervision says, and all epochs. cycle: so many epochs, to be used in turn.
    """

    k: int | None = None
    temperatures: tuple[float, ...] | None = None
    precision: StorePrecision = "float16"
    epochs: tuple[int, int] | None = None
    cycle: int | None = None


@dataclass(frozen=True)
class Verification:
    """What was seen when views were looked at again.

    views: how many, of `epochs` epochs. errors: the largest difference of a stored log-probability from the new one of
    the same class, of the label, of the log-sum-exp, and of the label on the image as it is, by what they are. wrong:
    in how many views one of them is more than rounding explains. changed: what is no longer what the manifest says, as
    "name: manifest's -> now".
    """

    views: int
    epochs: int
    errors: dict[str, float]
    wrong: int
    changed: list[str]


def label(recipe: Recipe, folder: Path, request: Request) -> None:
    """Fills the label store in `folder` with the answers of the recipe's teacher, from where an earlier call stopped.

    A teacher that must be trained is trained first, as for training. Under torchrun all processes share the work.
    Raises InputError for what the user can mend.
    """
    with joined() as world, ExitStack() as held:
        setup = prepare(resolve(recipe), Console(quiet=not world.first), world)
        _check(setup, request)
        world.told_by_first(lambda: _check_place(manifest_of(setup, "", request), folder))
        teacher = find_teacher(setup, folder)
        manifest, epochs = manifest_of(setup, teacher_digest(teacher), request), range(*_epochs(setup, request))
        left = world.told_by_first(lambda: _begin(setup, manifest, epochs, folder, held))
        _fill(setup, teacher, manifest, left, folder)


def verify(folder: Path, views: int, root: str | None, device: str, seed: int) -> Verification:
    """Has the teacher look again at some `views` of the store in `folder`, drawn by `seed` from at most eight epochs.

    `root` replaces the recipe's data.root. Raises InputError if the store, its data or its teacher cannot be had.
    """
    if views < 1:
        raise InputError(f"--views is {views}, but must be at least 1")
    if not 0 <= seed < 1 << 64:
        raise InputError(f"--seed is {seed}, but must be from 0 to 2^64 - 1")
    manifest, recipe = read_manifest(folder), read_recipe(folder / "recipe.yaml")
    data = replace(recipe.data, root=root or recipe.data.root)
    setup = prepare(check(replace(recipe, data=data, run=replace(recipe.run, device=device))), Console(stderr=True))
    _require_teacher(setup)
    teacher = find_teacher(setup, folder)
    now = replace(manifest, subject=subject_of(setup), teacher=teacher_digest(teacher))
    changed = [f"{folder}: {difference}" for difference in differences(manifest, now)]
    store, samples = LabelStore(folder, manifest), manifest.subject.samples
    if len(setup.dataset.train) != samples:
        raise InputError("; ".join(changed))
    there = stored_epochs(manifest, folder)
    if not there:
        raise InputError(f"label store {folder} holds no whole epoch yet; kdaug label, given the same again, goes on")
    errors = {"log-probability": 0.0, "label": 0.0, "log-sum-exp": 0.0, "label without augmentation": 0.0}
    seen, wrong = 0, 0
    epochs = [there[place] for place in permutation(seed, 0, len(there), Stream.SUBSET)[: min(views, 8)]]
    each = -(-views // len(epochs))
    drawn = {epoch: np.sort(permutation(seed, epoch + 1, samples, Stream.SUBSET)[:each]) for epoch in epochs}
    clean = look_at_clean(setup, teacher, np.unique(np.concatenate(list(drawn.values()))))
    for epoch, rows in drawn.items():
        for some, again in answers(setup, teacher, manifest, epoch, _in_batches(setup, epoch, rows)):
            found = _errors(store.records(epoch, some), again, manifest)
            found["label without augmentation"] = _beyond(store.clean[some], clean[some], manifest)
            seen, wrong = seen + len(some), wrong + int(torch.stack([bad for _, bad in found.values()]).any(0).sum())
            errors = {name: max(errors[name], float(error.max())) for name, (error, _) in found.items()}
    return Verification(seen, len(epochs), errors, wrong, changed)


Errors = tuple[Tensor, Tensor]
"""Of each view: the largest error, and whether it is more than rounding explains."""


def _errors(stored: dict[str, Tensor], again: dict[str, Tensor], manifest: Manifest) -> dict[str, Errors]:
    """By what they are of. A class that is no longer among the top is compared with the last of them."""
    last = again["logits"].float()[:, -1:]
    everything = last.expand(-1, len(manifest.subject.classes)).scatter(
        1, again["classes"].long(), again["logits"].float()
    )
    return {
        "log-probability": _beyond(stored["logits"], everything.gather(1, stored["classes"]), manifest),
        "label": _beyond(stored["label"], again["label"], manifest),
        "log-sum-exp": _beyond(stored["log_sum_exp"], again["log_sum_exp"], manifest),
    }


def _beyond(stored: Tensor, again: Tensor, manifest: Manifest) -> Errors:
    stored, again = stored.float().reshape(len(stored), -1), again.float().reshape(len(again), -1)
    error = (stored - again).abs().nan_to_num(math.inf)
    allowed = TOLERANCE[manifest.computed] + 1e-3 * again.abs()
    none = error.new_zeros(len(error), 1)  # a store may hold no log-sum-exp
    return torch.cat([error, none], 1).amax(1), (error > allowed).any(1)


def _require_teacher(setup: Setup) -> None:
    """InputError if the teacher would have to be trained, which is not what somebody who verifies asks for."""
    if setup.recipe.teacher.source == "train":
        place = teacher_recipe(setup.recipe, setup.dataset.content).run.dir
        assert place is not None
        if not RunDirectory(Path(place)).finished:
            raise InputError(f"the teacher of this store was trained in {place}, which is gone; bring it back")


def teacher_digest(teacher: Teacher) -> str:
    """Differs when the teacher's weights, or how it gets its input, do."""
    outputs = None if teacher.outputs is None else teacher.outputs.tolist()  # the same on any device
    sha256 = hashlib.sha256(repr((teacher.input_format, outputs)).encode())
    for name, tensor in sorted(teacher.network.state_dict().items()):
        sha256.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()[:16]


def manifest_of(setup: Setup, teacher: str, request: Request) -> Manifest:
    """What a store of answers to the views of `setup` is, by the teacher with this digest."""
    supervision, classes = setup.recipe.supervision, len(setup.dataset.classes)
    temperatures = request.temperatures or (supervision.temperature,)
    return Manifest(
        subject=subject_of(setup),
        teacher=teacher,
        k=min(request.k or classes_asked(supervision, classes), classes),
        temperatures=tuple(sorted({float(t) for t in temperatures if t != 1})),  # at 1 it is 0 by construction
        precision=request.precision,
        computed=str(setup.precision).removeprefix("torch."),
        cycle=request.cycle,
    )


def _epochs(setup: Setup, request: Request) -> tuple[int, int]:
    return request.epochs or (0, request.cycle or setup.epochs)


def _check(setup: Setup, request: Request) -> None:
    """InputError if this cannot be stored for the recipe."""
    (first, end), recipe = _epochs(setup, request), setup.recipe
    if request.cycle is not None and not 1 <= request.cycle <= setup.epochs:
        raise InputError(f"--cycle is {request.cycle}, but must be from 1 to the recipe's {setup.epochs} epochs")
    if not 0 <= first < end <= setup.epochs:
        raise InputError(f"--epochs {first}:{end} are not among the recipe's, which are 0:{setup.epochs}")
    if request.k is not None and request.k < 1:
        raise InputError(f"--k is {request.k}, but must be at least 1")
    for temperature in request.temperatures or ():
        if not 0 < temperature < math.inf:
            raise InputError(f"--temperatures holds {temperature:g}, but all must be above 0")
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


def _check_place(manifest: Manifest, folder: Path) -> None:
    """InputError if `folder` cannot become, or is not, the store of `manifest`, whoever its teacher."""
    if folder.exists() and (not folder.is_dir() or any(map(is_foreign, folder.iterdir()))):
        raise InputError(f"{folder} exists and is not a label store; choose another folder")
    there = _manifest_there(folder)
    if there is not None:
        changed = differences(replace(there, teacher=manifest.teacher), manifest)
        if changed:
            raise InputError(f"{folder} is a store of something else ({'; '.join(changed)}); choose another folder")
    above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(above, os.W_OK):
        raise InputError(f"{above} cannot be written to; choose another folder with --out")


def _manifest_there(folder: Path) -> Manifest | None:
    """None if there is none, or it is damaged: then what files there are say themselves whether they belong to it."""
    try:
        return read_manifest(folder)
    except NoManifest:
        return None


def _begin(setup: Setup, manifest: Manifest, epochs: Iterable[int], folder: Path, held: ExitStack) -> list[Part]:
    """Makes the folder a store, if it is none yet, and has it `held` for this process; what is left to be written."""
    _check_place(manifest, folder)
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(hold(folder, "filled"))
    there = _manifest_there(folder)
    if there is not None and there != manifest:
        changed = "; ".join(differences(there, manifest))
        raise InputError(f"{folder} is a store of something else ({changed}); choose another folder")
    left = [part for part in parts_of(manifest, epochs) if not part.is_written(manifest, folder)]
    size = sum(part.end - part.first for part in left) * manifest.bytes_per_view
    if left:
        say(
            setup.console,
            f"{folder}: {manifest.bytes_per_view} bytes a view, {manifest.subject.samples:,} images, "
            f"{len({part.epoch for part in left})} epoch(s) to be written: {size / 1e6:,.1f} MB",
        )
    if shutil.disk_usage(folder).free < size:
        raise InputError(f"{folder}: the disk has no {size / 1e6:,.1f} MB left; store fewer epochs or classes")
    if there is None:
        write_manifest(manifest, folder)
    if not (folder / "recipe.yaml").is_file():
        write_whole(folder / "recipe.yaml", to_yaml(setup.recipe))
    return left


def _fill(setup: Setup, teacher: Teacher, manifest: Manifest, left: Sequence[Part], folder: Path) -> None:
    """Writes the files `left`, and that of the clean labels if it is not there. The ranks share each of them."""
    world = setup.world
    if not world.told_by_first(lambda: has_clean(manifest, folder)):
        clean = look_at_clean(setup, teacher)
        world.told_by_first(lambda: write_clean(clean, manifest, folder))
    with show_progress(setup.console) as bar:
        views = sum(part.end - part.first for part in left)
        task = bar.add_task("labelling", total=views, speed="", figures="")
        for part in left:
            records = _look(setup, teacher, manifest, part, partial(bar.advance, task))
            world.told_by_first(partial(write_part, records, part, manifest, folder))


def _look(
    setup: Setup, teacher: Teacher, manifest: Manifest, part: Part, advance: Callable[[int], None]
) -> dict[str, Tensor]:
    """The records of a part. Every rank looks at its share of the batches, which do not depend on their number."""
    world, found = setup.world, list[tuple[NDArray[np.int64], dict[str, Tensor]]]()
    batches = _in_batches(setup, part.epoch, np.arange(part.first, part.end))[world.rank :: world.size]
    for rows, records in answers(setup, teacher, manifest, part.epoch, batches):
        found.append((rows, records))
        advance(len(rows) * world.size)
    whole = empty_records(part.end - part.first, manifest)
    for share in world.gather(found):
        for rows, records in share:
            for name, value in records.items():
                whole[name][torch.from_numpy(rows - part.first)] = value
    return whole


def _in_batches(setup: Setup, epoch: int, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    if setup.mixes(epoch):  # partners follow each other in the epoch's order, so that few are made twice
        rows = in_order_of_epoch(setup, epoch, rows)
    return np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))


def answers(
    setup: Setup, teacher: Teacher, manifest: Manifest, epoch: int, batches: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """Records of the images in `batches` as seen in `epoch`, each with the rows they are of; without the unreadable."""
    keys = (BatchKey(step, epoch, indices, epoch) for step, indices in enumerate(batches))
    with closing(prefetch(views_of(setup, keys, replace_unreadable=False))) as looks:
        for viewed in looks:
            seen = viewed.to(setup.device)
            with torch.no_grad(), autocast(setup.device, setup.precision):
                logits = teacher(seen.pixels)
            yield seen.key.indices, records_of(logits, seen.labels, manifest)
