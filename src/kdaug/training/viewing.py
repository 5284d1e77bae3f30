"""The views of a run: which images its networks see at every step, and how they are changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.data.frames import CentreCrop, Frame, RandomResizedCrop
from kdaug.data.images import digest
from kdaug.data.loader import Batch, BatchKey, load, training_keys
from kdaug.errors import InputError
from kdaug.supervision.label_store import Subject
from kdaug.training.optimization import available_cores
from kdaug.training.setup import Setup
from kdaug.views import apply
from kdaug.views.magnitude import planned_magnitude
from kdaug.views.policies import follows_epoch


@dataclass(frozen=True)
class Viewed:
    """A batch as the networks see it: which images, their views, what they show, and how strongly they were changed.

    pixels: uint8 [N,H,W,C]. labels: int64 [N]. magnitude: as planned for each view, float32 [N].
    """

    key: BatchKey
    pixels: Tensor
    labels: Tensor
    magnitude: Tensor

    def to(self, device: torch.device) -> Viewed:
        """The same on a device."""
        pixels, labels, magnitude = (
            column.to(device, non_blocking=True) for column in (self.pixels, self.labels, self.magnitude)
        )
        return Viewed(self.key, pixels, labels, magnitude)

    def chunk(self, parts: int) -> list[Viewed]:
        """The same in so many parts, as Tensor.chunk."""
        columns = (torch.from_numpy(self.key.indices), self.pixels, self.labels, self.magnitude)
        return [
            Viewed(replace(self.key, indices=indices.numpy()), *others)
            for indices, *others in zip(*(column.chunk(parts) for column in columns), strict=True)
        ]


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

    An unreadable image is left out, or replaced by the next readable one of the set.
    """
    recipe, dataset, seed = setup.recipe, setup.dataset, setup.recipe.views.seed
    assert seed is not None
    frame: Frame = CentreCrop(dataset.size[0])
    if recipe.views.crop == "random-resized":
        frame = RandomResizedCrop(dataset.size[0], seed, recipe.views.min_area)
    on_gpu = setup.device.type == "cuda"
    threads = max(1, available_cores() // setup.world.local_size) if on_gpu else 1  # on a CPU the network needs them
    for batch in load(dataset.train, keys, frame, recipe.data.workers, setup.unreadable_train, replace_unreadable):
        epoch = batch.key.view_epoch
        policy = setup.clean_policy if setup.is_clean(epoch) else setup.policy
        plan = policy.plan(seed, epoch, dataset.train.view_keys(batch.key.indices), dataset.size)
        pixels = torch.from_numpy(apply(batch.images, plan, threads))
        magnitude = torch.from_numpy(planned_magnitude(plan)).float()
        labels = torch.from_numpy(batch.labels)
        yield Viewed(batch.key, pixels.pin_memory() if on_gpu else pixels, labels, magnitude)


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
