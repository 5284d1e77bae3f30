"""Filling a label store: the teacher computes soft labels for every view that the students of a recipe will get."""

from __future__ import annotations

import hashlib
import logging
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
from rich.console import Console
from torch import Tensor

from kdaug.config import Recipe, to_yaml
from kdaug.data.loader import BatchKey, prefetch
from kdaug.data.main_guard import exit_if_spawned_worker
from kdaug.device import autocast
from kdaug.errors import InputError
from kdaug.storage import atomic_write, lock_directory
from kdaug.supervision import AnyTeacher, TeacherEnsemble
from kdaug.supervision.manifest import (
    MAX_CLASSES,
    Manifest,
    ManifestError,
    StorePrecision,
    manifest_differences,
    read_manifest,
    write_manifest,
)
from kdaug.supervision.records import (
    LabelFile,
    empty_records,
    epoch_files,
    has_unaugmented_label_log_probs,
    is_unknown_file,
    make_records,
    write_records,
    write_unaugmented_label_log_probs,
)
from kdaug.supervision.soft_labels import required_classes
from kdaug.training.batches import Indices, dataset_fingerprint, epoch_order, make_views
from kdaug.training.context import TrainContext, build_context
from kdaug.training.distributed import distributed_context
from kdaug.training.evaluation import (
    evaluation_batch,
    explain_evaluation_memory,
    unaugmented_label_log_probs,
)
from kdaug.training.loop import get_or_train_teacher
from kdaug.training.progress import console_logging, progress_bar
from kdaug.training.resolve import resolve
from kdaug.views.policies import follows_epoch

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LabelRequest:
    """Which soft labels are stored.

    k: classes per view. temperatures: at which the log-sum-exp is stored. None for both: as the recipe's
    supervision needs. epochs: first and end (not included); None: all. cycle: store this many epochs, whose views
    repeat cyclically; None: every epoch has its own views.
    """

    k: int | None = None
    temperatures: tuple[float, ...] | None = None
    precision: StorePrecision = "float16"
    epochs: tuple[int, int] | None = None
    cycle: int | None = None


def label_views(recipe: Recipe, folder: Path, request: LabelRequest) -> None:
    """Fills the label store in `folder` with the soft labels of the recipe's teacher; continues an earlier call.

    A teacher with source "train" is trained first. Under torchrun all processes share the work.
    """
    exit_if_spawned_worker()
    with distributed_context() as dist, console_logging(None if dist.is_rank0 else Console(quiet=True)):
        context = build_context(resolve(recipe), Console(quiet=not dist.is_rank0), dist)
        epochs = range(*(request.epochs or (0, request.cycle or context.epochs)))
        _check_request(context, request, epochs)
        dist.run_on_rank0(lambda: _check_folder(build_manifest(context, "", request), folder))
        teacher = get_or_train_teacher(context, folder)
        manifest = build_manifest(context, teacher_digest(teacher), request)
        with ExitStack() as lock:
            missing = dist.run_on_rank0(lambda: _open_store(context, manifest, epochs, folder, lock))
            _fill(context, teacher, manifest, missing, folder)


def teacher_digest(teacher: AnyTeacher) -> str:
    """16 hexadecimal digits that differ if the teacher's weights or its preprocessing differ."""
    sha256 = hashlib.sha256()
    for member in teacher.members:
        class_indices = None if member.class_indices is None else member.class_indices.tolist()  # same on any device
        sha256.update(repr((member.input_format, class_indices)).encode())
        for name, tensor in sorted(member.network.state_dict().items()):
            sha256.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    if isinstance(teacher, TeacherEnsemble) and teacher.fold is not None:
        sha256.update(teacher.fold.tobytes())
    return sha256.hexdigest()[:16]


def build_manifest(context: TrainContext, teacher: str, request: LabelRequest) -> Manifest:
    """The manifest of a store of soft labels for the views of `context`, by the teacher with this digest."""
    supervision, classes = context.recipe.supervision, len(context.dataset.classes)
    temperatures = request.temperatures or (supervision.temperature,)
    standardized = supervision.standardize_logits  # else the log-sum-exp at temperature 1 is 0
    return Manifest(
        dataset=dataset_fingerprint(context),
        teacher=teacher,
        k=min(request.k or required_classes(supervision, classes), classes),
        temperatures=tuple(sorted({float(t) for t in temperatures if t != 1 or standardized})),
        precision=request.precision,
        computed=str(context.precision).removeprefix("torch."),
        cycle=request.cycle,
        standardized=standardized,
    )


def _check_request(context: TrainContext, request: LabelRequest, epochs: range) -> None:
    """Raises InputError if these soft labels cannot be stored for the recipe."""
    recipe = context.recipe
    if request.cycle is not None and not 1 <= request.cycle <= context.epochs:
        raise InputError(f"cycle is {request.cycle}, but must be from 1 to the recipe's {context.epochs} epochs")
    if not 0 <= epochs.start < epochs.stop <= context.epochs:
        raise InputError(f"epochs {epochs.start}:{epochs.stop} are not within the recipe's epochs 0:{context.epochs}")
    if request.k is not None and request.k < 1:
        raise InputError(f"k is {request.k}, but must be at least 1")
    required = required_classes(recipe.supervision, len(context.dataset.classes))
    if request.k is not None and request.k < required:
        raise InputError(
            f"k is {request.k}, but supervision.divergence {recipe.supervision.divergence} of the recipe needs "
            f"{required} classes",
            "omit k, or set supervision to what the students will use",
        )
    for temperature in request.temperatures or ():
        if not 0 < temperature < math.inf:
            raise InputError(f"temperatures contain {temperature:g}, but all must be above 0")
    if request.cycle and recipe.optimization.clean_epochs:
        raise InputError("a cycle of views cannot be used with clean epochs", "omit the cycle or clean_epochs")
    if request.cycle and follows_epoch(recipe.views.policy):
        raise InputError(f"policy {recipe.views.policy} depends on the epoch, so a cycle of views cannot be used")
    if len(context.dataset.classes) > MAX_CLASSES:
        raise InputError(f"a label store holds at most {MAX_CLASSES} classes")
    if recipe.teacher.source == "none":
        raise InputError("teacher.source is none", "set it to one of train, bundled, run:DIR, file:PATH, timm:NAME")
    if recipe.teacher.labels is not None:
        raise InputError("teacher.labels must not be set when labels are stored", "leave it unset")


def _check_folder(manifest: Manifest, folder: Path) -> None:
    """Raises InputError if `folder` cannot be the store of `manifest`, regardless of the teacher."""
    if folder.exists() and (not folder.is_dir() or any(map(is_unknown_file, folder.iterdir()))):
        raise InputError(f"{folder} exists and is not a label store", "choose another folder")
    _existing_manifest(manifest, folder)
    parent = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise InputError(f"{parent} is not writable", "choose another folder")


def _existing_manifest(manifest: Manifest, folder: Path) -> Manifest | None:
    """The manifest in `folder`; None if there is none or it is damaged (each file of a store contains its digest).

    Raises InputError if it differs from `manifest`. manifest.teacher is "" before the teacher is loaded.
    """
    try:
        existing = read_manifest(folder)
    except ManifestError:
        return None
    differences = manifest_differences(existing, replace(manifest, teacher=manifest.teacher or existing.teacher))
    if differences:
        raise InputError(f"{folder} is another label store ({'; '.join(differences)})", "choose another folder")
    return existing


def _open_store(
    context: TrainContext, manifest: Manifest, epochs: Iterable[int], folder: Path, lock: ExitStack
) -> list[LabelFile]:
    """Creates the store if it is new, locks it until `lock` is closed, and returns the files still to be written."""
    folder.mkdir(parents=True, exist_ok=True)
    lock.enter_context(lock_directory(folder, "filled"))
    existing = _existing_manifest(manifest, folder)
    missing = [file for file in epoch_files(manifest, epochs) if not file.is_written(manifest, folder)]
    size = sum(file.end - file.first for file in missing) * manifest.bytes_per_view
    if missing:
        _logger.info(
            f"{folder}: {manifest.bytes_per_view} bytes per view, {manifest.dataset.samples:,} images, "
            f"{len({file.epoch for file in missing})} epoch(s) to write: {size / 1e6:,.1f} MB"
        )
    if shutil.disk_usage(folder).free < size:
        raise InputError(f"{folder}: the disk has less than {size / 1e6:,.1f} MB left", "store fewer epochs or classes")
    if existing is None:
        write_manifest(manifest, folder)
    if not (folder / "recipe.yaml").is_file():
        atomic_write(folder / "recipe.yaml", to_yaml(context.recipe))
    return missing


def _fill(
    context: TrainContext, teacher: AnyTeacher, manifest: Manifest, missing: Sequence[LabelFile], folder: Path
) -> None:
    """Writes the `missing` files, and clean.safetensors if it is missing. The ranks share each file."""
    dist = context.dist
    if not dist.run_on_rank0(lambda: has_unaugmented_label_log_probs(manifest, folder)):
        log_probs = unaugmented_label_log_probs(context, teacher)
        dist.run_on_rank0(lambda: write_unaugmented_label_log_probs(log_probs, manifest, folder))
    with explain_evaluation_memory(context, "labeling"), progress_bar(context.console) as bar:
        views = sum(file.end - file.first for file in missing)
        task = bar.add_task("labeling", total=views, speed="", metrics="")
        for file in missing:
            records = _compute_file(context, teacher, manifest, file, partial(bar.advance, task))
            dist.run_on_rank0(partial(write_records, records, file, manifest, folder))


def _compute_file(
    context: TrainContext, teacher: AnyTeacher, manifest: Manifest, file: LabelFile, advance: Callable[[int], None]
) -> dict[str, Tensor]:
    """The records of a file. The batches do not depend on the number of ranks; each rank computes a share of them."""
    dist, computed = context.dist, list[tuple[Indices, dict[str, Tensor]]]()
    batches = split_into_batches(context, file.epoch, np.arange(file.first, file.end))[dist.rank :: dist.world_size]
    for indices, records in compute_records(context, teacher, manifest, file.epoch, batches):
        computed.append((indices, records))
        advance(len(indices) * dist.world_size)
    complete = empty_records(file.end - file.first, manifest)
    for of_rank in dist.gather(computed):
        for indices, records in of_rank:
            for name, value in records.items():
                complete[name][torch.from_numpy(indices - file.first)] = value
    return complete


def split_into_batches(context: TrainContext, epoch: int, indices: Indices) -> list[Indices]:
    """`indices` in batches for the teacher."""
    if context.mixes_images(epoch):  # in the epoch's order partners are neighbors, so few views are made twice
        indices = epoch_order(context, epoch, indices)
    size = evaluation_batch(context)
    return np.split(indices, range(size, len(indices), size))


def compute_records(
    context: TrainContext, teacher: AnyTeacher, manifest: Manifest, epoch: int, batches: Iterable[Indices]
) -> Iterator[tuple[Indices, dict[str, Tensor]]]:
    """The records of the views of `epoch`, batch by batch, each with its images; unreadable images are left out."""
    keys = (BatchKey(step, epoch, indices, epoch) for step, indices in enumerate(batches))
    with closing(prefetch(make_views(context, keys, replace_unreadable=False))) as view_batches:
        for batch in view_batches:
            on_device = batch.to(context.device)
            with torch.no_grad(), autocast(context.device, context.precision):
                logits = teacher(on_device.pixels, on_device.key.indices)
            yield on_device.key.indices, make_records(logits, on_device.labels, manifest)
