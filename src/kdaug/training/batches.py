"""The batches of a run: which images the networks get at every step, and their augmented views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.data.balance import balanced_order
from kdaug.data.crops import CenterCrop, ImageCrop, RandomResizedCrop
from kdaug.data.images import EncodedImages, digest
from kdaug.data.loader import Batch, BatchKey, load, training_keys
from kdaug.data.unlabelled import mixed_order
from kdaug.device import available_cores
from kdaug.errors import InputError
from kdaug.rng import permutation
from kdaug.supervision import MixedLabels
from kdaug.supervision.manifest import DatasetFingerprint
from kdaug.training.context import TrainContext
from kdaug.views import ViewPlan, apply
from kdaug.views.magnitude import planned_magnitude, visible_share
from kdaug.views.mixing import mix, partners, plan_mixing
from kdaug.views.policies import follows_epoch, read_factors

Indices = NDArray[np.int64]
"""Indices of training images, [N]; see `ArrayImages`."""
_IMAGES_AT_ONCE = 1024
"""Images in memory that are augmented at once. Planning their views takes 0.4 ms whether they are 1 or 128."""


@dataclass(frozen=True)
class ViewBatch:
    """A batch of views: which images, their augmented pixels and labels, and how strongly they were augmented.

    pixels: uint8 [N,H,W,C]. labels: int64 [N]. magnitude: the planned magnitude of each view, float32 [N]. visible: the
    share of the image in its crop, float32 [N] in 0..1 (see `visible_share`).
    mixed_labels: the second labels of mixed views (mixup, CutMix); None if each view shows one image.
    """

    key: BatchKey
    pixels: Tensor
    labels: Tensor
    magnitude: Tensor
    visible: Tensor
    mixed_labels: MixedLabels | None = None

    def to(self, device: torch.device) -> ViewBatch:
        """A copy on `device`."""
        return self._with_columns(self.key, [column.to(device, non_blocking=True) for column in self._columns()])

    def chunk(self, parts: int) -> list[ViewBatch]:
        """The batch in `parts` parts, split as by Tensor.chunk."""
        indices = torch.from_numpy(self.key.indices).chunk(parts)
        return self.split([replace(self.key, indices=rows.numpy()) for rows in indices])

    def split(self, keys: Sequence[BatchKey]) -> list[ViewBatch]:
        """The batch in consecutive parts, one for each of `keys`, whose indices give its size."""
        sizes = [len(key.indices) for key in keys]
        columns = zip(*(torch.split(column, sizes) for column in self._columns()), strict=True)
        return [self._with_columns(key, part) for key, part in zip(keys, columns, strict=True)]

    def concat(self, other: ViewBatch) -> ViewBatch:
        """The rows of both batches, with the step and epoch of this one."""
        key = replace(self.key, indices=np.concatenate([self.key.indices, other.key.indices]))
        columns = zip(self._columns(), other._columns(), strict=True)
        return self._with_columns(key, [torch.cat(pair) for pair in columns])

    def _columns(self) -> list[Tensor]:
        mixed = self.mixed_labels
        optional = [] if mixed is None else [mixed.partner_labels, mixed.own_weight]
        return [self.pixels, self.labels, self.magnitude, self.visible, *optional]

    def _with_columns(self, key: BatchKey, columns: Sequence[Tensor]) -> ViewBatch:
        pixels, labels, magnitude, visible, *mixed = columns
        return ViewBatch(key, pixels, labels, magnitude, visible, MixedLabels(*mixed) if mixed else None)


def training_batches(context: TrainContext, first_step: int, view_cycle: int | None = None) -> Iterator[ViewBatch]:
    """This rank's share of every batch from `first_step` to the end of the run.

    Unlabelled images are mixed in, see `mixed_order`. An unreadable image is replaced by the next readable one in the
    dataset. view_cycle: the number of epochs whose
    views repeat cyclically; None: every epoch has its own views. Raises InputError if no image is readable.
    """
    recipe, dataset = context.recipe, context.dataset
    batch_size, seed, count = recipe.optimization.global_batch, recipe.views.seed, len(dataset.train)
    order_of: Callable[[int], Indices] | None = None
    if context.balance == "sample":
        order_of = partial(balanced_order, dataset.train.labels, seed)
    elif dataset.unlabelled is not None:
        order_of = partial(mixed_order, count, len(dataset.unlabelled), batch_size, context.unlabelled_in_batch, seed)
        count = context.steps_per_epoch * batch_size
    keys = training_keys(count, batch_size, context.epochs, seed, first_step, view_cycle, order_of)
    for batch in make_views(context, (context.dist.shard(key) for key in keys), replace_unreadable=True):
        if len(batch.labels) == 0:
            raise InputError("no training image is readable")
        yield batch


def make_views(context: TrainContext, keys: Iterable[BatchKey], replace_unreadable: bool) -> Iterator[ViewBatch]:
    """The views of the training images in each of `keys`, mixed where the recipe says so.

    An unreadable image is replaced by the next readable one in the dataset, or left out. Used for training, for
    labeling and for inspection, so that all three get the same views.
    """
    check_magnitude_factors(context)
    own_keys, load_keys = tee(keys)
    batches = _load(context, (_add_partners(context, key) for key in load_keys), replace_unreadable)
    for key, views in zip(own_keys, _augment_all(context, batches), strict=True):
        if context.mixes_images(key.view_epoch):
            views = _mix(context, views, _own_rows(key, views.key, replace_unreadable))
        yield replace(views, pixels=views.pixels.pin_memory()) if context.device.type == "cuda" else views


def _load(
    context: TrainContext, keys: Iterable[BatchKey], replace_unreadable: bool, workers: int | None = None
) -> Iterator[Batch]:
    """The images of `keys`, decoded and cropped, by data.workers processes unless `workers` is given."""
    views, dataset = context.recipe.views, context.dataset
    crop: ImageCrop = CenterCrop(dataset.size[0])
    if views.crop == "random-resized":
        crop = RandomResizedCrop(dataset.size[0], views.seed, views.min_area)
    workers = context.recipe.data.workers if workers is None else workers
    return load(context.train_images, keys, crop, workers, context.unreadable_train, replace_unreadable)


def plan_views(context: TrainContext, epoch: int, indices: Indices) -> ViewPlan:
    """The plan of the views of training images `indices` in `epoch`, before mixing."""
    sample_ids = context.train_images.sample_ids(indices)
    return context.epoch_policy(epoch).plan(context.recipe.views.seed, epoch, sample_ids, context.dataset.size)


def _augment_all(context: TrainContext, batches: Iterable[Batch]) -> Iterator[ViewBatch]:
    """Each of `batches` augmented. Images in memory are augmented in larger groups, which costs less per image."""
    at_once = 1 if isinstance(context.dataset.train, EncodedImages) else _IMAGES_AT_ONCE
    for group in _group_batches(batches, at_once):
        keys = [batch.key for batch in group]
        images = np.concatenate([batch.images for batch in group]) if len(group) > 1 else group[0].images
        labels = np.concatenate([batch.labels for batch in group])
        indices = np.concatenate([key.indices for key in keys])
        yield from _augment(context, Batch(images, labels, replace(keys[0], indices=indices))).split(keys)


def _group_batches(batches: Iterable[Batch], at_once: int) -> Iterator[list[Batch]]:
    """Groups of consecutive batches of one epoch with at most `at_once` images, or of a single batch."""
    group: list[Batch] = []
    for batch in batches:
        images = sum(len(each.labels) for each in [*group, batch])
        if group and (images > at_once or batch.key.view_epoch != group[0].key.view_epoch):
            yield group
            group = []
        group.append(batch)
    if group:
        yield group


def _augment(context: TrainContext, batch: Batch) -> ViewBatch:
    """Each image of `batch` in its own view, not mixed."""
    # On a CPU the network needs the other threads.
    threads = max(1, available_cores() // context.dist.local_world_size) if context.device.type == "cuda" else 1
    plan = plan_views(context, batch.key.view_epoch, batch.key.indices)
    pixels = apply(batch.images, plan, threads) if len(plan) else batch.images
    magnitude, visible = (torch.from_numpy(measure(plan)).float() for measure in (planned_magnitude, visible_share))
    return ViewBatch(batch.key, torch.from_numpy(pixels), torch.from_numpy(batch.labels), magnitude, visible)


def _partners(context: TrainContext, epoch: int) -> Indices:
    """For every training image, the image that it is mixed with in `epoch`."""
    return partners(context.recipe.views.seed, epoch, len(context.dataset.train))


def _add_partners(context: TrainContext, key: BatchKey) -> BatchKey:
    """`key` with the partners that are not in the batch appended, if its views are mixed."""
    if not context.mixes_images(key.view_epoch):
        return key
    extra = np.setdiff1d(_partners(context, key.view_epoch)[key.indices], key.indices)
    return replace(key, indices=np.concatenate([key.indices, extra]))


def _own_rows(key: BatchKey, loaded: BatchKey, replace_unreadable: bool) -> Indices:
    """The rows of a loaded batch with the images of `key`; the others were loaded only as mixing partners."""
    if replace_unreadable:  # own images come first, each replaced by another one if need be
        return np.arange(min(len(key.indices), len(loaded.indices)))
    return np.isin(loaded.indices, key.indices).nonzero()[0]


def _mix(context: TrainContext, views: ViewBatch, own: Indices) -> ViewBatch:
    """The views at rows `own`, mixed with those of their partners. A view with an unreadable partner is not mixed."""
    epoch, settings, size = views.key.view_epoch, context.recipe.views, context.dataset.size
    indices = views.key.indices[own]
    partner_indices = _partners(context, epoch)[indices]
    pool = _add_missing(context, views, partner_indices)
    row_of = {index: row for row, index in enumerate(pool.key.indices.tolist())}
    partner = np.array(
        [row_of.get(index, row) for index, row in zip(partner_indices.tolist(), own.tolist(), strict=True)], np.int64
    )
    plan = plan_mixing(
        settings.seed, epoch, context.dataset.train.sample_ids(indices), size, settings.mixup, settings.cutmix
    )
    pixels = mix(pool.pixels[own].numpy(), pool.pixels[partner].numpy(), plan)
    return ViewBatch(
        replace(views.key, indices=indices),
        torch.from_numpy(pixels),
        views.labels[own],
        views.magnitude[own],
        views.visible[own],
        MixedLabels(pool.labels[partner], torch.from_numpy(plan.own_weight(size))),
    )


def _add_missing(context: TrainContext, views: ViewBatch, indices: Indices) -> ViewBatch:
    """`views` with those of images `indices` that it lacks: the partners of images that replaced unreadable ones."""
    missing = np.setdiff1d(indices, views.key.indices)
    if not len(missing):
        return views
    key = replace(views.key, indices=missing)
    (loaded,) = _load(context, [key], replace_unreadable=False, workers=0)
    return views.concat(_augment(context, loaded))


def epoch_order(context: TrainContext, epoch: int, indices: Indices) -> Indices:
    """`indices` in the order in which `epoch` goes through the training images."""
    order = permutation(context.recipe.views.seed, epoch, len(context.train_images))
    return order[np.isin(order, indices)]


def unaugmented_batches(context: TrainContext, batches: Iterable[Indices]) -> Iterator[Batch]:
    """The training images in `batches`, unaugmented as validation images are; unreadable ones are left out."""
    keys = (BatchKey(0, 0, indices, 0) for indices in batches)
    crop = CenterCrop(context.dataset.size[0])
    return load(context.train_images, keys, crop, context.recipe.data.workers, context.unreadable_train)


def check_magnitude_factors(context: TrainContext) -> None:
    """Raises InputError if views.magnitude_factors are those of other images."""
    source = context.recipe.views.magnitude_factors
    if source is not None and read_factors(source).images != dataset_fingerprint(context).data:
        raise InputError(
            f"views.magnitude_factors {source.partition('#')[0]} are of other training images",
            "write them for these with kdaug recommend RECIPE --per-image FILE",
        )


def dataset_fingerprint(context: TrainContext) -> DatasetFingerprint:
    """What identifies the training images of a run and their views."""
    recipe, dataset = context.recipe, context.dataset
    views = {f"views.{name}": value for name, value in asdict(recipe.views).items()}
    views["size"] = list(dataset.size)
    views["optimization.epochs"] = recipe.optimization.epochs if follows_epoch(recipe.views.policy) else None
    views["clean epochs from"] = recipe.optimization.epochs if recipe.optimization.clean_epochs else None
    subset: tuple[object, ...] = (recipe.data.train_images, recipe.data.holdout)
    if dataset.unlabelled_content:
        subset += (dataset.unlabelled_content,)
    if recipe.views.crop != "soft":
        del views["views.soft_crop_deviation"]  # it has no effect, and stores made before it was a setting lack it
    factors = views.pop("views.magnitude_factors")
    if factors is not None:
        views["views.magnitude_factors"] = factors.partition("#")[2]  # wherever the file is
    if recipe.data.omit_fold is not None:
        subset += (recipe.data.omit_fold,)
    # dataset.content is a digest of all images
    labels = context.train_images.labels
    data = digest(f"{dataset.content} {subset}".encode(), labels)
    return DatasetFingerprint(len(labels), dataset.classes, data, views)
