"""Verifying a label store: the teacher computes some of its soft labels again."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from kdaug.config import check
from kdaug.errors import InputError
from kdaug.rng import Stream, permutation
from kdaug.runs import RunDirectory
from kdaug.supervision import LabelStore
from kdaug.supervision.manifest import Manifest, manifest_differences, read_manifest
from kdaug.supervision.records import complete_epochs
from kdaug.training.batches import dataset_fingerprint
from kdaug.training.context import TrainContext, build_context
from kdaug.training.evaluation import unaugmented_label_log_probs
from kdaug.training.labeling import compute_records, split_into_batches, teacher_digest
from kdaug.training.loop import get_or_train_teacher
from kdaug.training.resolve import read_resolved_recipe, teacher_run_recipes

TOLERANCE = {"float32": 0.02, "bfloat16": 0.5, "float16": 0.1}
"""Largest difference of a recomputed log-probability, by the teacher's autocast type; plus 0.001 of its value."""
_MAX_EPOCHS = 8

Errors = tuple[Tensor, Tensor]
"""For each view: the largest error, and whether it is more than rounding explains."""


@dataclass(frozen=True)
class Verification:
    """The result of a verification of `views` views from `epochs` epochs.

    errors: the largest difference between stored and recomputed values, by name. wrong: the number of views with a
    difference that rounding does not explain. changed: what no longer matches the manifest, as "name: manifest -> now".
    """

    views: int
    epochs: int
    errors: dict[str, float]
    wrong: int
    changed: list[str]


def verify_labels(folder: Path, views: int, root: str | None, device: str, seed: int) -> Verification:
    """Recomputes about `views` random soft labels of the store in `folder`, from at most eight epochs.

    root: replaces data.root. seed: 0 to 2^64 - 1. Raises InputError if the store, its data or its teacher is missing.
    """
    if views < 1:
        raise InputError(f"views is {views}, but must be at least 1")
    if not 0 <= seed < 1 << 64:
        raise InputError(f"seed is {seed}, but must be from 0 to 2^64 - 1")
    manifest, recipe = read_manifest(folder), read_resolved_recipe(folder / "recipe.yaml")
    data = replace(recipe.data, root=root or recipe.data.root)
    recipe = replace(recipe, data=data, run=replace(recipe.run, device=device))
    check(recipe)
    context = build_context(recipe, Console(stderr=True))
    _require_teacher(context)
    teacher = get_or_train_teacher(context, folder)
    current = replace(manifest, dataset=dataset_fingerprint(context), teacher=teacher_digest(teacher))
    changed = [f"{folder}: {difference}" for difference in manifest_differences(manifest, current)]
    if len(context.train_images) != manifest.dataset.samples:
        raise InputError("; ".join(changed))
    indices = _draw_views(manifest, folder, views, seed)
    unaugmented = unaugmented_label_log_probs(context, teacher, np.unique(np.concatenate(list(indices.values()))))
    store = LabelStore(folder, manifest)
    errors = dict[str, float]()
    compared, wrong = 0, 0
    for epoch, rows in indices.items():
        batches = split_into_batches(context, epoch, rows)
        for batch, computed in compute_records(context, teacher, manifest, epoch, batches):
            batch_errors = _compare(store.records(epoch, batch), computed, manifest)
            stored = store.unaugmented_label_log_probs[batch]
            batch_errors["label without augmentation"] = _errors(stored, unaugmented[batch], manifest)
            compared += len(batch)
            wrong += int(torch.stack([is_wrong for _, is_wrong in batch_errors.values()]).any(0).sum())
            errors = {name: max(errors.get(name, 0.0), float(error.max())) for name, (error, _) in batch_errors.items()}
    return Verification(compared, len(indices), errors, wrong, changed)


def _draw_views(manifest: Manifest, folder: Path, views: int, seed: int) -> dict[int, np.ndarray]:
    """By epoch, the images whose views are verified; about `views` in all."""
    stored = complete_epochs(manifest, folder)
    if not stored:
        raise InputError(
            f"label store {folder} has no complete epoch yet", "run the same kdaug label command again to continue it"
        )
    epochs = [stored[row] for row in permutation(seed, 0, len(stored), Stream.SUBSET)[: min(views, _MAX_EPOCHS)]]
    per_epoch, samples = -(-views // len(epochs)), manifest.dataset.samples
    return {epoch: np.sort(permutation(seed, epoch + 1, samples, Stream.SUBSET)[:per_epoch]) for epoch in epochs}


def _compare(stored: dict[str, Tensor], computed: dict[str, Tensor], manifest: Manifest) -> dict[str, Errors]:
    """The errors of each column. A class no longer among the top K is compared with the K-th log-probability."""
    last = computed["logits"].float()[:, -1:]
    all_classes = last.expand(-1, len(manifest.dataset.classes)).scatter(
        1, computed["classes"].long(), computed["logits"].float()
    )
    errors = {
        "log-probability": _errors(stored["logits"], all_classes.gather(1, stored["classes"]), manifest),
        "label": _errors(stored["label"], computed["label"], manifest),
        "log-sum-exp": _errors(stored["log_sum_exp"], computed["log_sum_exp"], manifest),
    }
    if manifest.standardized:
        errors["spread"] = _errors(stored["spread"], computed["spread"], manifest)
    return errors


def _errors(stored: Tensor, computed: Tensor, manifest: Manifest) -> Errors:
    stored, computed = stored.float().reshape(len(stored), -1), computed.float().reshape(len(computed), -1)
    error = (stored - computed).abs().nan_to_num(math.inf)
    allowed = TOLERANCE[manifest.computed] + 1e-3 * computed.abs()
    zero = error.new_zeros(len(error), 1)  # a store may have no log-sum-exp
    return torch.cat([error, zero], 1).amax(1), (error > allowed).any(1)


def _require_teacher(context: TrainContext) -> None:
    """Raises InputError if the teacher would have to be trained again: a verification does not train."""
    if context.recipe.teacher.source == "train":
        for teacher in teacher_run_recipes(context.recipe, context.dataset.content):
            path = Path(teacher.run.dir or "")
            if not RunDirectory(path).is_finished:
                raise InputError(f"the teacher of this store was trained in {path}, which is missing", "restore it")
