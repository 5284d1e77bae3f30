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
from kdaug.device import autocast
from kdaug.errors import InputError
from kdaug.rng.philox import Stream, permutation
from kdaug.runs import RunDirectory
from kdaug.storage.atomic import atomic_write
from kdaug.storage.lock import lock_directory
from kdaug.supervision import LabelStore, Teacher
from kdaug.supervision.label_store import (
    MAX_CLASSES,
    EpochFile,
    Manifest,
    ManifestError,
    StorePrecision,
    complete_epochs,
    empty_records,
    epoch_files,
    has_clean_labels,
    is_unknown_file,
    make_records,
    manifest_differences,
    read_manifest,
    write_clean,
    write_manifest,
    write_records,
)
from kdaug.supervision.soft_labels import required_classes
from kdaug.training.batches import dataset_fingerprint, epoch_order, views_of
from kdaug.training.clean_log_probs import clean_label_log_probs
from kdaug.training.context import EVALUATION_BATCH, TrainContext, build_context
from kdaug.training.distributed import distributed_context
from kdaug.training.loop import find_teacher
from kdaug.training.progress import print_line, progress_bar
from kdaug.training.resolve import resolve, teacher_run_recipe
from kdaug.views.policies import follows_epoch

TOLERANCE = {"float32": 0.02, "bfloat16": 0.5, "float16": 0.1}
"""How far a log-probability may differ when a teacher that computes in this type looks again, besides a thousandth."""


@dataclass(frozen=True)
class LabelRequest:
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


def label_views(recipe: Recipe, folder: Path, request: LabelRequest) -> None:
    """Fills the label store in `folder` with the answers of the recipe's teacher, from where an earlier call stopped.

    A teacher that must be trained is trained first, as for training. Under torchrun all processes share the work.
    Raises InputError for what the user can mend.
    """
    with distributed_context() as dist, ExitStack() as held:
        context = build_context(resolve(recipe), Console(quiet=not dist.is_rank0), dist)
        _check(context, request)
        dist.run_on_rank0(lambda: _check_place(build_manifest(context, "", request), folder))
        teacher = find_teacher(context, folder)
        manifest, epochs = build_manifest(context, teacher_digest(teacher), request), range(*_epochs(context, request))
        left = dist.run_on_rank0(lambda: _begin(context, manifest, epochs, folder, held))
        _fill(context, teacher, manifest, left, folder)


def verify_labels(folder: Path, views: int, root: str | None, device: str, seed: int) -> Verification:
    """Has the teacher look again at some `views` of the store in `folder`, drawn by `seed` from at most eight epochs.

    `root` replaces the recipe's data.root. Raises InputError if the store, its data or its teacher cannot be had.
    """
    if views < 1:
        raise InputError(f"--views is {views}, but must be at least 1")
    if not 0 <= seed < 1 << 64:
        raise InputError(f"--seed is {seed}, but must be from 0 to 2^64 - 1")
    manifest, recipe = read_manifest(folder), read_recipe(folder / "recipe.yaml")
    data = replace(recipe.data, root=root or recipe.data.root)
    context = build_context(
        check(replace(recipe, data=data, run=replace(recipe.run, device=device))), Console(stderr=True)
    )
    _require_teacher(context)
    teacher = find_teacher(context, folder)
    now = replace(manifest, subject=dataset_fingerprint(context), teacher=teacher_digest(teacher))
    changed = [f"{folder}: {difference}" for difference in manifest_differences(manifest, now)]
    store, samples = LabelStore(folder, manifest), manifest.subject.samples
    if len(context.dataset.train) != samples:
        raise InputError("; ".join(changed))
    there = complete_epochs(manifest, folder)
    if not there:
        raise InputError(f"label store {folder} holds no whole epoch yet; kdaug label, given the same again, goes on")
    errors = {"log-probability": 0.0, "label": 0.0, "log-sum-exp": 0.0, "label without augmentation": 0.0}
    seen, wrong = 0, 0
    epochs = [there[place] for place in permutation(seed, 0, len(there), Stream.SUBSET)[: min(views, 8)]]
    each = -(-views // len(epochs))
    drawn = {epoch: np.sort(permutation(seed, epoch + 1, samples, Stream.SUBSET)[:each]) for epoch in epochs}
    clean = clean_label_log_probs(context, teacher, np.unique(np.concatenate(list(drawn.values()))))
    for epoch, rows in drawn.items():
        for some, again in answers(context, teacher, manifest, epoch, _in_batches(context, epoch, rows)):
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


def _require_teacher(context: TrainContext) -> None:
    """InputError if the teacher would have to be trained, which is not what somebody who verifies asks for."""
    if context.recipe.teacher.source == "train":
        place = teacher_run_recipe(context.recipe, context.dataset.content).run.dir
        assert place is not None
        if not RunDirectory(Path(place)).is_finished:
            raise InputError(f"the teacher of this store was trained in {place}, which is gone; bring it back")


def teacher_digest(teacher: Teacher) -> str:
    """Differs when the teacher's weights, or how it gets its input, do."""
    outputs = None if teacher.outputs is None else teacher.outputs.tolist()  # the same on any device
    sha256 = hashlib.sha256(repr((teacher.input_format, outputs)).encode())
    for name, tensor in sorted(teacher.network.state_dict().items()):
        sha256.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()[:16]


def build_manifest(context: TrainContext, teacher: str, request: LabelRequest) -> Manifest:
    """What a store of answers to the views of `context` is, by the teacher with this digest."""
    supervision, classes = context.recipe.supervision, len(context.dataset.classes)
    temperatures = request.temperatures or (supervision.temperature,)
    return Manifest(
        subject=dataset_fingerprint(context),
        teacher=teacher,
        k=min(request.k or required_classes(supervision, classes), classes),
        temperatures=tuple(sorted({float(t) for t in temperatures if t != 1})),  # at 1 it is 0 by construction
        precision=request.precision,
        computed=str(context.precision).removeprefix("torch."),
        cycle=request.cycle,
    )


def _epochs(context: TrainContext, request: LabelRequest) -> tuple[int, int]:
    return request.epochs or (0, request.cycle or context.epochs)


def _check(context: TrainContext, request: LabelRequest) -> None:
    """InputError if this cannot be stored for the recipe."""
    (first, end), recipe = _epochs(context, request), context.recipe
    if request.cycle is not None and not 1 <= request.cycle <= context.epochs:
        raise InputError(f"--cycle is {request.cycle}, but must be from 1 to the recipe's {context.epochs} epochs")
    if not 0 <= first < end <= context.epochs:
        raise InputError(f"--epochs {first}:{end} are not among the recipe's, which are 0:{context.epochs}")
    if request.k is not None and request.k < 1:
        raise InputError(f"--k is {request.k}, but must be at least 1")
    for temperature in request.temperatures or ():
        if not 0 < temperature < math.inf:
            raise InputError(f"--temperatures holds {temperature:g}, but all must be above 0")
    if request.cycle and recipe.optimization.clean_epochs:
        raise InputError("views that are used in turn cannot serve clean epochs; leave out --cycle or clean_epochs")
    if request.cycle and follows_epoch(recipe.views.policy):
        raise InputError(f"policy {recipe.views.policy} follows the epoch, so its views cannot be used in turn")
    if len(context.dataset.classes) > MAX_CLASSES:
        raise InputError(f"a label store holds at most {MAX_CLASSES} classes")
    if recipe.teacher.source == "none":
        raise InputError(
            "teacher.source is none; name the teacher that is to look: train, run:DIR, file:PATH, timm:NAME"
        )
    if recipe.teacher.labels is not None:
        raise InputError("teacher.labels is given, but labels are to be made; leave it out")


def _check_place(manifest: Manifest, folder: Path) -> None:
    """InputError if `folder` cannot become, or is not, the store of `manifest`, whoever its teacher."""
    if folder.exists() and (not folder.is_dir() or any(map(is_unknown_file, folder.iterdir()))):
        raise InputError(f"{folder} exists and is not a label store; choose another folder")
    there = _manifest_there(folder)
    if there is not None:
        changed = manifest_differences(replace(there, teacher=manifest.teacher), manifest)
        if changed:
            raise InputError(f"{folder} is a store of something else ({'; '.join(changed)}); choose another folder")
    above = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(above, os.W_OK):
        raise InputError(f"{above} cannot be written to; choose another folder with --out")


def _manifest_there(folder: Path) -> Manifest | None:
    """None if there is none, or it is damaged: then what files there are say themselves whether they belong to it."""
    try:
        return read_manifest(folder)
    except ManifestError:
        return None


def _begin(
    context: TrainContext, manifest: Manifest, epochs: Iterable[int], folder: Path, held: ExitStack
) -> list[EpochFile]:
    """Makes the folder a store, if it is none yet, and has it `held` for this process; what is left to be written."""
    _check_place(manifest, folder)
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(lock_directory(folder, "filled"))
    there = _manifest_there(folder)
    if there is not None and there != manifest:
        changed = "; ".join(manifest_differences(there, manifest))
        raise InputError(f"{folder} is a store of something else ({changed}); choose another folder")
    left = [part for part in epoch_files(manifest, epochs) if not part.is_written(manifest, folder)]
    size = sum(part.end - part.first for part in left) * manifest.bytes_per_view
    if left:
        print_line(
            context.console,
            f"{folder}: {manifest.bytes_per_view} bytes a view, {manifest.subject.samples:,} images, "
            f"{len({part.epoch for part in left})} epoch(s) to be written: {size / 1e6:,.1f} MB",
        )
    if shutil.disk_usage(folder).free < size:
        raise InputError(f"{folder}: the disk has no {size / 1e6:,.1f} MB left; store fewer epochs or classes")
    if there is None:
        write_manifest(manifest, folder)
    if not (folder / "recipe.yaml").is_file():
        atomic_write(folder / "recipe.yaml", to_yaml(context.recipe))
    return left


def _fill(context: TrainContext, teacher: Teacher, manifest: Manifest, left: Sequence[EpochFile], folder: Path) -> None:
    """Writes the files `left`, and that of the clean labels if it is not there. The ranks share each of them."""
    dist = context.dist
    if not dist.run_on_rank0(lambda: has_clean_labels(manifest, folder)):
        clean = clean_label_log_probs(context, teacher)
        dist.run_on_rank0(lambda: write_clean(clean, manifest, folder))
    with progress_bar(context.console) as bar:
        views = sum(part.end - part.first for part in left)
        task = bar.add_task("labelling", total=views, speed="", figures="")
        for part in left:
            records = _look(context, teacher, manifest, part, partial(bar.advance, task))
            dist.run_on_rank0(partial(write_records, records, part, manifest, folder))


def _look(
    context: TrainContext, teacher: Teacher, manifest: Manifest, part: EpochFile, advance: Callable[[int], None]
) -> dict[str, Tensor]:
    """The records of a part. Every rank looks at its share of the batches, which do not depend on their number."""
    dist, found = context.dist, list[tuple[NDArray[np.int64], dict[str, Tensor]]]()
    batches = _in_batches(context, part.epoch, np.arange(part.first, part.end))[dist.rank :: dist.size]
    for rows, records in answers(context, teacher, manifest, part.epoch, batches):
        found.append((rows, records))
        advance(len(rows) * dist.size)
    whole = empty_records(part.end - part.first, manifest)
    for share in dist.gather(found):
        for rows, records in share:
            for name, value in records.items():
                whole[name][torch.from_numpy(rows - part.first)] = value
    return whole


def _in_batches(context: TrainContext, epoch: int, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    if context.mixes_images(epoch):  # partners follow each other in the epoch's order, so that few are made twice
        rows = epoch_order(context, epoch, rows)
    return np.split(rows, range(EVALUATION_BATCH, len(rows), EVALUATION_BATCH))


def answers(
    context: TrainContext, teacher: Teacher, manifest: Manifest, epoch: int, batches: Iterable[NDArray[np.int64]]
) -> Iterator[tuple[NDArray[np.int64], dict[str, Tensor]]]:
    """Records of the images in `batches` as seen in `epoch`, each with the rows they are of; without the unreadable."""
    keys = (BatchKey(step, epoch, indices, epoch) for step, indices in enumerate(batches))
    with closing(prefetch(views_of(context, keys, replace_unreadable=False))) as looks:
        for view_batch in looks:
            seen = view_batch.to(context.device)
            with torch.no_grad(), autocast(context.device, context.precision):
                logits = teacher(seen.pixels)
            yield seen.key.indices, make_records(logits, seen.labels, manifest)
