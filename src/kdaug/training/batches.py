"""The views of a run: which images its networks see at every step, and how they are changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import tee

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.data.crops import CenterCrop, ImageCrop, RandomResizedCrop
from kdaug.data.images import digest
from kdaug.data.loader import Batch, BatchKey, load, training_keys
from kdaug.device import available_cores
from kdaug.errors import InputError
from kdaug.rng.philox import permutation
from kdaug.supervision import MixedLabels
from kdaug.supervision.label_store import DatasetFingerprint
from kdaug.training.context import TrainContext
from kdaug.views import apply
from kdaug.views.magnitude import planned_magnitude
from kdaug.views.mixing import mix, partners, plan_mixing
from kdaug.views.policies import follows_epoch


@dataclass(frozen=True)
class ViewBatch:
    """A batch as the networks see it: which images, their views, what they show, and how strongly they were changed.

    pixels: uint8 [N,H,W,C]. labels: int64 [N]. magnitude: as planned for each view, float32 [N]. mixture: what views of
    two images show besides; None if they are of one.
    """

    key: BatchKey
    pixels: Tensor
    labels: Tensor
    magnitude: Tensor
    mixture: MixedLabels | None = None

    def to(self, device: torch.device) -> ViewBatch:
        """The same on a device."""
        return self._with(self.key, [column.to(device, non_blocking=True) for column in self._columns()])

    def chunk(self, parts: int) -> list[ViewBatch]:
        """The same in so many parts, as Tensor.chunk."""
        indices = torch.from_numpy(self.key.indices).chunk(parts)
        columns = zip(*(column.chunk(parts) for column in self._columns()), strict=True)
        return [
            self._with(replace(self.key, indices=rows.numpy()), part)
            for rows, part in zip(indices, columns, strict=True)
        ]

    def _columns(self) -> list[Tensor]:
        mixture = [] if self.mixture is None else [self.mixture.labels, self.mixture.share]
        return [self.pixels, self.labels, self.magnitude, *mixture]

    def _with(self, key: BatchKey, columns: Sequence[Tensor]) -> ViewBatch:
        pixels, labels, magnitude, *mixture = columns
        return ViewBatch(key, pixels, labels, magnitude, MixedLabels(*mixture) if mixture else None)


def training_batches(context: TrainContext, first_step: int, cycle: int | None = None) -> Iterator[ViewBatch]:
    """This rank's share of every batch of the run from `first_step` on.

    An unreadable image is replaced by the next readable one of the set. With `cycle` the views of so many epochs are
    used in turn.
    """
    count, batch, seed = len(context.dataset.train), context.recipe.optimization.global_batch, context.recipe.views.seed
    assert seed is not None
    keys = training_keys(count, batch, context.epochs, seed, first_step, cycle)
    for view_batch in views_of(context, (context.dist.shard(key) for key in keys), replace_unreadable=True):
        if len(view_batch.labels) == 0:
            raise InputError("not one training image can be read")
        yield view_batch


def views_of(context: TrainContext, keys: Iterable[BatchKey], replace_unreadable: bool) -> Iterator[ViewBatch]:
    """The training images of each of `keys` in their views.

    An unreadable image is left out, or replaced by the next readable one of the set; as partner in a mixture it is
    left out.
    """
    asked, keys = tee(keys)
    batches = _load(
        context, map(partial(_with_partners, context), keys), context.recipe.data.workers, replace_unreadable
    )
    for key, batch in zip(asked, batches, strict=True):
        seen = _seen(context, batch)
        if context.mixes_images(key.view_epoch):
            loaded = seen.key.indices
            own = np.arange(len(key.indices)) if replace_unreadable else np.isin(loaded, key.indices).nonzero()[0]
            seen = _mixed(context, seen, own[own < len(loaded)])
        yield replace(seen, pixels=seen.pixels.pin_memory()) if context.device.type == "cuda" else seen


def _load(context: TrainContext, keys: Iterable[BatchKey], workers: int, replace_unreadable: bool) -> Iterator[Batch]:
    views, dataset = context.recipe.views, context.dataset
    crop: ImageCrop = CenterCrop(dataset.size[0])
    if views.crop == "random-resized":
        assert views.seed is not None
        crop = RandomResizedCrop(dataset.size[0], views.seed, views.min_area)
    return load(dataset.train, keys, crop, workers, context.unreadable_train, replace_unreadable)


def _seen(context: TrainContext, batch: Batch) -> ViewBatch:
    """The images of a batch, each in its own view."""
    epoch, seed, dataset = batch.key.view_epoch, context.recipe.views.seed, context.dataset
    assert seed is not None
    # on a CPU the network needs the other threads
    threads = max(1, available_cores() // context.dist.local_size) if context.device.type == "cuda" else 1
    policy = context.clean_policy if context.is_clean_epoch(epoch) else context.policy
    plan = policy.plan(seed, epoch, dataset.train.view_keys(batch.key.indices), dataset.size)
    pixels = apply(batch.images, plan, threads) if len(plan) else batch.images
    magnitude = torch.from_numpy(planned_magnitude(plan)).float()
    return ViewBatch(batch.key, torch.from_numpy(pixels), torch.from_numpy(batch.labels), magnitude)


def _partners(context: TrainContext, epoch: int) -> NDArray[np.int64]:
    assert context.recipe.views.seed is not None
    return partners(context.recipe.views.seed, epoch, len(context.dataset.train))


def _with_partners(context: TrainContext, key: BatchKey) -> BatchKey:
    """The same batch, and after it the partners that are not in it."""
    if not context.mixes_images(key.view_epoch):
        return key
    others = np.setdiff1d(_partners(context, key.view_epoch)[key.indices], key.indices)
    return replace(key, indices=np.concatenate([key.indices, others]))


def _mixed(context: TrainContext, seen: ViewBatch, own: NDArray[np.int64]) -> ViewBatch:
    """Mixtures of the views at places `own` of `seen` with their partners', which are there, or else are loaded now.

    What has a partner that cannot be read stays as it is.
    """
    views, epoch = context.recipe.views, seen.key.view_epoch
    assert views.seed is not None
    rows = seen.key.indices[own]
    wanted = _partners(context, epoch)[rows]
    missing = np.setdiff1d(wanted, seen.key.indices)
    there = [seen]
    if len(missing):  # an image that could not be read has been replaced by another, whose partner is another too
        there += [_seen(context, batch) for batch in _load(context, [replace(seen.key, indices=missing)], 0, False)]
    place = {row: at for at, row in enumerate(np.concatenate([each.key.indices for each in there]).tolist())}
    partner = np.array([place.get(row, at) for row, at in zip(wanted.tolist(), own.tolist(), strict=True)], np.int64)
    pixels, labels = (torch.cat([getattr(each, name) for each in there]) for name in ("pixels", "labels"))
    keys = context.dataset.train.view_keys(rows)
    plan = plan_mixing(views.seed, epoch, keys, context.dataset.size, views.mixup, views.cutmix)
    mixed = torch.from_numpy(mix(pixels[own].numpy(), pixels[partner].numpy(), plan))
    mixture = MixedLabels(labels[partner], torch.from_numpy(plan.share(context.dataset.size)))
    return ViewBatch(replace(seen.key, indices=rows), mixed, labels[own], seen.magnitude[own], mixture)


def epoch_order(context: TrainContext, epoch: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same rows in the order in which `epoch` goes through the images."""
    assert context.recipe.views.seed is not None
    order = permutation(context.recipe.views.seed, epoch, len(context.dataset.train))
    return order[np.isin(order, rows)]


def unaugmented_batches(context: TrainContext, batches: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
    """The training images in `batches`, unaugmented as validation images are; without the unreadable."""
    keys = (BatchKey(0, 0, rows, 0) for rows in batches)
    crop = CenterCrop(context.dataset.size[0])
    return load(context.dataset.train, keys, crop, context.recipe.data.workers, context.unreadable_train)


def dataset_fingerprint(context: TrainContext) -> DatasetFingerprint:
    """The training images of a run and the views it sees them in."""
    recipe, dataset = context.recipe, context.dataset
    views = {f"views.{name}": value for name, value in asdict(recipe.views).items()}
    views["size"] = list(dataset.size)
    views["optimization.epochs"] = recipe.optimization.epochs if follows_epoch(recipe.views.policy) else None
    views["clean epochs from"] = recipe.optimization.epochs if recipe.optimization.clean_epochs else None
    part = (recipe.data.train_images, recipe.data.holdout)  # content is of all
    data = digest(f"{dataset.content} {part}".encode(), dataset.train.labels)
    return DatasetFingerprint(len(dataset.train), dataset.classes, data, views)
