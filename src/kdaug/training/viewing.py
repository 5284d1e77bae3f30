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

from kdaug.data.frames import CentreCrop, Frame, RandomResizedCrop
from kdaug.data.images import digest
from kdaug.data.loader import Batch, BatchKey, load, training_keys
from kdaug.errors import InputError
from kdaug.philox import permutation
from kdaug.supervision import Mixture
from kdaug.supervision.label_store import Subject
from kdaug.training.optimization import available_cores
from kdaug.training.setup import Setup
from kdaug.views import apply
from kdaug.views.magnitude import planned_magnitude
from kdaug.views.mixing import mix, partners, plan_mixtures
from kdaug.views.policies import follows_epoch


@dataclass(frozen=True)
class Viewed:
    """A batch as the networks see it: which images, their views, what they show, and how strongly they were changed.

    pixels: uint8 [N,H,W,C]. labels: int64 [N]. magnitude: as planned for each view, float32 [N]. mixture: what views of
    two images show besides; None if they are of one.
    """

    key: BatchKey
    pixels: Tensor
    labels: Tensor
    magnitude: Tensor
    mixture: Mixture | None = None

    def to(self, device: torch.device) -> Viewed:
        """The same on a device."""
        return self._with(self.key, [column.to(device, non_blocking=True) for column in self._columns()])

    def chunk(self, parts: int) -> list[Viewed]:
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

    def _with(self, key: BatchKey, columns: Sequence[Tensor]) -> Viewed:
        pixels, labels, magnitude, *mixture = columns
        return Viewed(key, pixels, labels, magnitude, Mixture(*mixture) if mixture else None)


def training_views(setup: Setup, first_step: int, cycle: int | None = None) -> Iterator[Viewed]:
    """This rank's share of every batch of the run from `first_step` on.

    An unreadable image is replaced by the next readable one of the set. With `cycle` the views of so many epochs are
    used in turn.
    """
    count, batch, seed = len(setup.dataset.train), setup.recipe.optimization.global_batch, setup.recipe.views.seed
    assert seed is not None
    keys = training_keys(count, batch, setup.epochs, seed, first_step, cycle)
    for viewed in views_of(setup, (setup.world.share_of(key) for key in keys), replace_unreadable=True):
        if len(viewed.labels) == 0:
            raise InputError("not one training image can be read")
        yield viewed


def views_of(setup: Setup, keys: Iterable[BatchKey], replace_unreadable: bool) -> Iterator[Viewed]:
    """The training images of each of `keys` in their views.

    An unreadable image is left out, or replaced by the next readable one of the set; as partner in a mixture it is
    left out.
    """
    asked, keys = tee(keys)
    batches = _load(setup, map(partial(_with_partners, setup), keys), setup.recipe.data.workers, replace_unreadable)
    for key, batch in zip(asked, batches, strict=True):
        seen = _seen(setup, batch)
        if setup.mixes(key.view_epoch):
            loaded = seen.key.indices
            own = np.arange(len(key.indices)) if replace_unreadable else np.isin(loaded, key.indices).nonzero()[0]
            seen = _mixed(setup, seen, own[own < len(loaded)])
        yield replace(seen, pixels=seen.pixels.pin_memory()) if setup.device.type == "cuda" else seen


def _load(setup: Setup, keys: Iterable[BatchKey], workers: int, replace_unreadable: bool) -> Iterator[Batch]:
    views, dataset = setup.recipe.views, setup.dataset
    frame: Frame = CentreCrop(dataset.size[0])
    if views.crop == "random-resized":
        assert views.seed is not None
        frame = RandomResizedCrop(dataset.size[0], views.seed, views.min_area)
    return load(dataset.train, keys, frame, workers, setup.unreadable_train, replace_unreadable)


def _seen(setup: Setup, batch: Batch) -> Viewed:
    """The images of a batch, each in its own view."""
    epoch, seed, dataset = batch.key.view_epoch, setup.recipe.views.seed, setup.dataset
    assert seed is not None
    # on a CPU the network needs the other threads
    threads = max(1, available_cores() // setup.world.local_size) if setup.device.type == "cuda" else 1
    policy = setup.clean_policy if setup.is_clean(epoch) else setup.policy
    plan = policy.plan(seed, epoch, dataset.train.view_keys(batch.key.indices), dataset.size)
    pixels = apply(batch.images, plan, threads) if len(plan) else batch.images
    magnitude = torch.from_numpy(planned_magnitude(plan)).float()
    return Viewed(batch.key, torch.from_numpy(pixels), torch.from_numpy(batch.labels), magnitude)


def _partners(setup: Setup, epoch: int) -> NDArray[np.int64]:
    assert setup.recipe.views.seed is not None
    return partners(setup.recipe.views.seed, epoch, len(setup.dataset.train))


def _with_partners(setup: Setup, key: BatchKey) -> BatchKey:
    """The same batch, and after it the partners that are not in it."""
    if not setup.mixes(key.view_epoch):
        return key
    others = np.setdiff1d(_partners(setup, key.view_epoch)[key.indices], key.indices)
    return replace(key, indices=np.concatenate([key.indices, others]))


def _mixed(setup: Setup, seen: Viewed, own: NDArray[np.int64]) -> Viewed:
    """Mixtures of the views at places `own` of `seen` with their partners', which are there, or else are loaded now.

    What has a partner that cannot be read stays as it is.
    """
    views, epoch = setup.recipe.views, seen.key.view_epoch
    assert views.seed is not None
    rows = seen.key.indices[own]
    wanted = _partners(setup, epoch)[rows]
    missing = np.setdiff1d(wanted, seen.key.indices)
    there = [seen]
    if len(missing):  # an image that could not be read has been replaced by another, whose partner is another too
        there += [_seen(setup, batch) for batch in _load(setup, [replace(seen.key, indices=missing)], 0, False)]
    place = {row: at for at, row in enumerate(np.concatenate([each.key.indices for each in there]).tolist())}
    partner = np.array([place.get(row, at) for row, at in zip(wanted.tolist(), own.tolist(), strict=True)], np.int64)
    pixels, labels = (torch.cat([getattr(each, name) for each in there]) for name in ("pixels", "labels"))
    keys = setup.dataset.train.view_keys(rows)
    plan = plan_mixtures(views.seed, epoch, keys, setup.dataset.size, views.mixup, views.cutmix)
    mixed = torch.from_numpy(mix(pixels[own].numpy(), pixels[partner].numpy(), plan))
    mixture = Mixture(labels[partner], torch.from_numpy(plan.share(setup.dataset.size)))
    return Viewed(replace(seen.key, indices=rows), mixed, labels[own], seen.magnitude[own], mixture)


def in_order_of_epoch(setup: Setup, epoch: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same rows in the order in which `epoch` goes through the images."""
    assert setup.recipe.views.seed is not None
    order = permutation(setup.recipe.views.seed, epoch, len(setup.dataset.train))
    return order[np.isin(order, rows)]


def images_as_they_are(setup: Setup, batches: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
    """The training images in `batches`, unaugmented as validation images are; without the unreadable."""
    keys = (BatchKey(0, 0, rows, 0) for rows in batches)
    frame = CentreCrop(setup.dataset.size[0])
    return load(setup.dataset.train, keys, frame, setup.recipe.data.workers, setup.unreadable_train)


def subject_of(setup: Setup) -> Subject:
    """The training images of a run and the views it sees them in."""
    recipe, dataset = setup.recipe, setup.dataset
    views = {f"views.{name}": value for name, value in asdict(recipe.views).items()}
    views["size"] = list(dataset.size)
    views["optimization.epochs"] = recipe.optimization.epochs if follows_epoch(recipe.views.policy) else None
    views["clean epochs from"] = recipe.optimization.epochs if recipe.optimization.clean_epochs else None
    part = (recipe.data.train_images, recipe.data.holdout)  # content is of all
    data = digest(f"{dataset.content} {part}".encode(), dataset.train.labels)
    return Subject(len(dataset.train), dataset.classes, data, views)
