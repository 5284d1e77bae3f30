"""What stays the same throughout a run: the resolved recipe, its data, policies, device and processes."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from kdaug.config import Network, ResolvedRecipe
from kdaug.data import Dataset, EncodedImages, load_dataset
from kdaug.data.balance import Balance, class_counts, class_weights, is_imbalanced
from kdaug.data.images import Images
from kdaug.data.loader import UnreadableImages
from kdaug.data.unlabelled import check_enough, concatenate
from kdaug.device import available_cores, check_cuda_graphs, find_device, find_precision, make_deterministic
from kdaug.errors import InputError
from kdaug.networks import (
    NetworkInfo,
    check_forward,
    create_network,
    load_initial_weights,
    published_mean_std,
    set_batch_norm_momentum,
)
from kdaug.runs import RunDirectory
from kdaug.training.distributed import SINGLE_PROCESS, DistContext
from kdaug.training.parallel import accumulation_steps, check_parallel, prepare_network
from kdaug.training.resolve import teacher_run_recipes
from kdaug.views import Policy
from kdaug.views.policies import policy_from_views

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainContext:
    """A resolved recipe with everything that was built from it once.

    policy: crop, flip, augmentation and cutout, for the epochs under the recipe's policy; clean_policy: crop and flip,
    for the clean epochs. precision: the autocast type. console: where progress bars are drawn. resumes: whether the
    student comes from a checkpoint, so that its initial weights are not read.
    """

    recipe: ResolvedRecipe
    dataset: Dataset
    policy: Policy
    clean_policy: Policy
    device: torch.device
    precision: torch.dtype
    dist: DistContext
    console: Console
    unreadable_train: UnreadableImages
    unreadable_val: UnreadableImages
    resumes: bool = False

    @cached_property
    def network_info(self) -> NetworkInfo:
        """The description stored in the student's weight files."""
        return replace(
            _describe_network(self.recipe.student, self.dataset),
            photos=isinstance(self.dataset.val, EncodedImages),
            evaluate_size=self.recipe.run.evaluate_size,
        )

    @cached_property
    def balance(self) -> Balance:
        """data.balance, with a method in place of auto. It is the same in all processes and after a run is resumed.

        Sampling is preferred: in the comparison of Buda et al. (arXiv 1710.05381) oversampling is the best method in
        almost all cases.
        """
        balance = self.recipe.data.balance
        if balance != "auto":
            return balance
        if not is_imbalanced(self.train_counts) or self.dataset.unlabelled is not None:
            return "none"
        return "loss" if self.recipe.teacher.labels is not None or self.recipe.views.mixes else "sample"

    @cached_property
    def train_images(self) -> Images:
        """The images that batches are made of: the labelled ones, then the unlabelled ones."""
        dataset = self.dataset
        return dataset.train if dataset.unlabelled is None else concatenate(dataset.train, dataset.unlabelled)

    @property
    def unlabelled_in_batch(self) -> int:
        """How many images of a batch have no label: data.unlabelled_share of it, but neither none nor all."""
        if self.dataset.unlabelled is None:
            return 0
        batch = self.recipe.optimization.global_batch
        return min(max(1, round(self.recipe.data.unlabelled_share * batch)), batch - 1)

    @cached_property
    def train_counts(self) -> NDArray[np.int64]:
        """The number of training images of each class, int64 [classes]."""
        return class_counts(self.dataset.train.labels, len(self.dataset.classes))

    @cached_property
    def val_is_imbalanced(self) -> bool:
        """Whether the smallest class has less than a fifth of the validation images of the largest."""
        return is_imbalanced(class_counts(self.dataset.val.labels, len(self.dataset.classes)))

    @cached_property
    def class_weight(self) -> Tensor | None:
        """The weight of each class in the cross-entropy, float32 [classes] on the device; None: all have 1."""
        if self.balance != "loss":
            return None
        return torch.tensor(class_weights(self.train_counts), dtype=torch.float32, device=self.device)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train) // (self.recipe.optimization.global_batch - self.unlabelled_in_batch)

    @property
    def epochs(self) -> int:
        return self.recipe.optimization.total_epochs

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.epochs

    @property
    def accumulation_steps(self) -> int:
        """How many parts this process splits its share of a batch into; their gradients are accumulated."""
        return accumulation_steps(self.recipe, self.dist)

    def count_unreadable(self) -> int:
        """How many images turned out to be unreadable, on all ranks together."""
        names = (*self.unreadable_train.names, *self.unreadable_val.names)
        return len({name for of_rank in self.dist.gather(names) for name in of_rank})

    def is_clean_epoch(self, epoch: int) -> bool:
        """Whether `epoch` (from 0) is one of the clean epochs at the end."""
        return epoch >= self.recipe.optimization.epochs

    def epoch_policy(self, epoch: int) -> Policy:
        """The policy of the views of `epoch`, before mixing."""
        return self.clean_policy if self.is_clean_epoch(epoch) else self.policy

    def uses_teacher(self, epoch: int) -> bool:
        """Whether the teacher's soft labels are used in `epoch`."""
        return self.recipe.supervision.when in ("all", "clean" if self.is_clean_epoch(epoch) else "policy")

    def mixes_images(self, epoch: int) -> bool:
        """Whether the views of `epoch` are mixed from two images (mixup or CutMix)."""
        return self.recipe.views.mixes and not self.is_clean_epoch(epoch)


def build_context(
    recipe: ResolvedRecipe, console: Console, dist: DistContext = SINGLE_PROCESS, dataset: Dataset | None = None
) -> TrainContext:
    """Finds the device, sets threads and determinism, and reads the data unless `dataset` is given.

    Raises InputError if the device or the data are not available.
    """
    device = find_device(recipe.run.device, dist.local_rank)
    check_cuda_graphs(recipe.run, device)
    make_deterministic(device)
    torch.set_num_threads(recipe.run.threads or max(1, available_cores() // dist.local_world_size))
    if recipe.data.download:
        dist.run_on_rank0(lambda: load_dataset(recipe.data).name)  # downloaded once, then there for all ranks
    dataset = dataset or load_dataset(recipe.data)
    views, encoded = recipe.views, isinstance(dataset.train, EncodedImages)
    return TrainContext(
        recipe,
        dataset,
        policy=policy_from_views(views, dataset.fill, encoded, epochs=recipe.optimization.epochs),
        clean_policy=policy_from_views(
            replace(views, policy="none", magnitude_factors=None, cutout=0), dataset.fill, encoded, epochs=1
        ),
        device=device,
        precision=find_precision(recipe.optimization, device),
        dist=dist,
        console=console,
        unreadable_train=UnreadableImages(
            len(dataset.train) + len(dataset.unlabelled or ()), recipe.data.max_unreadable
        ),
        unreadable_val=UnreadableImages(len(dataset.val), recipe.data.max_unreadable),
    )


def log_balance(context: TrainContext) -> None:
    """Logs how class imbalance is treated, if it is."""
    if context.balance == "none":
        return
    counts, classes = context.train_counts, context.dataset.classes
    smallest, largest = int(np.where(counts > 0, counts, counts.max()).argmin()), int(counts.argmax())
    method = {
        "sample": "training images are drawn with equal class probability",
        "loss": "the cross-entropy is weighted by inverse class frequency",
    }[context.balance]
    chosen = "chosen by auto" if context.recipe.data.balance == "auto" else "as set"
    _logger.info(
        f"data.balance {context.balance} ({chosen}): class {classes[smallest]} has {counts[smallest]:,} training "
        f"image(s), class {classes[largest]} {counts[largest]:,}; {method}"
    )


def _raise_too_few_images(context: TrainContext) -> NoReturn:
    """Raises InputError: there are fewer labelled images than a batch has."""
    batch, images = context.recipe.optimization.global_batch, len(context.dataset.train)
    if context.dataset.unlabelled is None:
        raise InputError(f"optimization.global_batch is {batch}, but there are {images} training images")
    share = math.ceil(100 * (batch - images) / batch) / 100
    raise InputError(
        f"a batch has {batch - context.unlabelled_in_batch} labelled images, but there are {images}",
        f"set data.unlabelled_share to at least {share:g}, or a smaller optimization.global_batch",
    )


def check_trainable(context: TrainContext) -> None:
    """Raises InputError if there is no batch to train on, or a network to be trained does not accept the images."""
    recipe, dataset = context.recipe, context.dataset
    batch = recipe.optimization.global_batch
    if dataset.unlabelled is not None and batch < 2:
        raise InputError(f"optimization.global_batch is {batch}, but data.unlabelled needs at least 2")
    if context.steps_per_epoch == 0:
        _raise_too_few_images(context)
    if dataset.unlabelled is not None:
        check_enough(len(dataset.train), len(dataset.unlabelled), batch, context.unlabelled_in_batch)
    check_parallel(recipe, context.dist, context.device, context.precision)
    share, count = recipe.supervision.drop_worst, _images_at_once(context)
    if share and not 1 <= round(share * count) < count:
        raise InputError(
            f"supervision.drop_worst is {share:g}, none or all of the {count} image(s) per forward pass",
            "use larger batches (optimization.global_batch, run.device_batch) or another share",
        )
    for settings, starts in _networks_to_train(context).items():
        network = _create_network(settings, dataset)
        if starts and settings.initial_weights is not None:
            load_initial_weights(network, settings, _describe_network(settings, dataset))
        network = prepare_network(network, recipe)
        check_forward(network.train(), settings.name, len(example_input(context)), dataset.channels, dataset.size)
        if recipe.run.evaluate_size is not None and settings == recipe.student:
            side = recipe.run.evaluate_size
            check_forward(network.eval(), settings.name, 1, dataset.channels, (side, side))


def _networks_to_train(context: TrainContext) -> dict[Network, bool]:
    """The student's network, and the teacher's if it is trained, each with whether it is trained from the start."""
    recipe = context.recipe
    networks = {recipe.student: not context.resumes}
    if recipe.teacher.source == "train" and recipe.teacher.labels is None:
        teachers = teacher_run_recipes(recipe, context.dataset.content)
        directories = [RunDirectory(Path(teacher.run.dir or "")) for teacher in teachers]
        starts = context.dist.run_on_rank0(lambda: not all(directory.has_begun for directory in directories))
        networks[teachers[0].student] = networks.get(teachers[0].student, False) or starts
    return networks


def _images_at_once(context: TrainContext) -> int:
    """How many images one forward pass of this process takes."""
    return context.recipe.optimization.global_batch // context.dist.world_size // context.accumulation_steps


def example_input(context: TrainContext) -> Tensor:
    """Black images on the device, float32 [N,C,H,W]; N is 2 (1 if no batch has more), doubled with an adversary."""
    count = min(_images_at_once(context), 2) * (2 if context.recipe.adversary.steps else 1)
    return torch.zeros(count, context.dataset.channels, *context.dataset.size, device=context.device)


def create_student(context: TrainContext) -> nn.Module:
    """The recipe's network in main memory, with random weights from run.seed.

    The recipe's initial weights replace them unless the run resumes; logs which were loaded.
    """
    torch.manual_seed(context.recipe.run.seed)
    network = _create_network(context.recipe.student, context.dataset)
    if context.recipe.student.initial_weights is not None and not context.resumes:
        _logger.info(load_initial_weights(network, context.recipe.student, context.network_info))
    network = prepare_network(network, context.recipe)
    if not context.dist.is_rank0:  # the same weights on every rank, but different noise (dropout, say)
        torch.manual_seed((context.recipe.run.seed + (context.dist.rank << 40)) % (1 << 63))
    return network


def _describe_network(settings: Network, dataset: Dataset) -> NetworkInfo:
    """The network of `settings` for `dataset`. Its mean and std are those of its initial weights if they are known for
    the dataset's number of channels, else the dataset's."""
    mean, std = dataset.mean, dataset.std
    if settings.mean is not None and settings.std is not None:
        mean, std = settings.mean, settings.std
    elif settings.pretrained:
        published = published_mean_std(settings.name)
        mean, std = published if published and len(published[0]) == dataset.channels else (mean, std)
    return NetworkInfo(settings.name, dataset.classes, mean, std, dataset.size, settings.arguments)


def _create_network(settings: Network, dataset: Dataset) -> nn.Module:
    network = create_network(
        settings.name,
        len(dataset.classes),
        dataset.channels,
        drop_path=settings.drop_path,
        dropout=settings.dropout,
        arguments=settings.arguments,
    )
    if settings.batch_norm_momentum is not None:
        set_batch_norm_momentum(network, settings.name, settings.batch_norm_momentum)
    return network
