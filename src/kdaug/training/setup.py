"""What stays the same throughout a run, made from its recipe before the first step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from kdaug.config import Recipe
from kdaug.data import Dataset, FolderImages, load_dataset
from kdaug.data.frames import CentreCrop, Frame, RandomResizedCrop
from kdaug.data.loader import (
    Batch,
    UnreadableImages,
    evaluation_keys,
    load,
    training_keys,
)
from kdaug.errors import InputError
from kdaug.networks import NetworkCard, create_network, published_input, try_out
from kdaug.supervision import Teacher, load_teacher
from kdaug.training.evaluation import Scores, evaluate
from kdaug.training.optimization import autocast, available_cores, find_device, find_precision
from kdaug.training.progress import counted, say, show_progress
from kdaug.training.resolving import teacher_recipe
from kdaug.views import Policy, apply
from kdaug.views.policies import of_recipe

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Setup:
    """A resolved recipe with its data, its views and the device it runs on."""

    recipe: Recipe
    dataset: Dataset
    policy: Policy
    device: torch.device
    precision: torch.dtype
    console: Console
    unreadable_train: UnreadableImages
    unreadable_val: UnreadableImages

    @property
    def card(self) -> NetworkCard:
        """What the student's weight files say of themselves; a pretrained one is fed as it was before."""
        d, student = self.dataset, self.recipe.student
        published = published_input(student.name) if student.pretrained else None
        mean, std = published if published and len(published[0]) == d.channels else (d.mean, d.std)
        return NetworkCard(student.name, d.classes, mean, std, d.size)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train) // self.recipe.optimization.global_batch

    @property
    def steps(self) -> int:
        return self.steps_per_epoch * self.recipe.optimization.epochs


def prepare(recipe: Recipe, console: Console) -> Setup:
    """Reads the data and finds the device of a resolved recipe; InputError if they cannot be had."""
    device = find_device(recipe.run.device)
    torch.set_num_threads(recipe.run.threads or max(1, available_cores() - 1))
    dataset = load_dataset(recipe.data)

    def unreadable(images: int) -> UnreadableImages:
        return UnreadableImages(images, recipe.data.max_unreadable, partial(say, console))

    return Setup(
        recipe,
        dataset,
        of_recipe(
            recipe.views, dataset.fill, isinstance(dataset.train, FolderImages), epochs=recipe.optimization.epochs
        ),
        device,
        find_precision(recipe.optimization, device),
        console,
        unreadable(len(dataset.train)),
        unreadable(len(dataset.val)),
    )


def check_training(setup: Setup) -> None:
    """InputError if there is no batch to train on, or the student, or its teacher to be trained, cannot take one."""
    recipe, dataset = setup.recipe, setup.dataset
    batch = recipe.optimization.global_batch
    if len(dataset.train) < batch:
        raise InputError(f"optimization.global_batch is {batch}, but there are {len(dataset.train)} training images")
    wanted = {recipe.student}
    if recipe.teacher.source == "train":
        wanted.add(teacher_recipe(recipe).student)
    for student in wanted:
        network = create_network(student.name, len(dataset.classes), dataset.channels, student.pretrained)
        try_out(network.train(), student.name, min(batch, 2), dataset.channels, dataset.size)


def training_views(setup: Setup, first_step: int) -> Iterator[tuple[Batch, Tensor]]:
    """Every batch of the run from `first_step` on with its views, uint8 [N,H,W,C], still in main memory."""
    recipe, dataset = setup.recipe, setup.dataset
    seed = recipe.views.seed
    assert seed is not None
    keys = training_keys(
        len(dataset.train), recipe.optimization.global_batch, recipe.optimization.epochs, seed, first_step
    )
    frame: Frame = CentreCrop(dataset.size[0])
    if recipe.views.crop == "random-resized":
        frame = RandomResizedCrop(dataset.size[0], seed, recipe.views.min_area)
    threads = 1 if setup.device.type == "cpu" else None  # on a CPU the network needs the cores
    for batch in load(dataset.train, keys, frame, recipe.data.workers, setup.unreadable_train):
        if len(batch.labels) == 0:
            yield batch, torch.empty(0)
            continue
        plan = setup.policy.plan(seed, batch.key.epoch, batch.key.indices, dataset.size)
        yield batch, torch.from_numpy(apply(batch.images, plan, threads))


def validation_batches(setup: Setup) -> Iterable[Batch]:
    """All validation images, unaugmented."""
    val = setup.dataset.val
    frame = CentreCrop(setup.dataset.size[0])
    return load(
        val, evaluation_keys(len(val), EVALUATION_BATCH), frame, setup.recipe.data.workers, setup.unreadable_val
    )


def evaluate_network(setup: Setup, network: nn.Module, bar: Progress) -> Scores:
    """Scores of a network trained on this data, in evaluation mode, on the validation images; shown on `bar`."""
    to_input = setup.card.input_format.prepare
    batches = counted(bar, "evaluating", validation_batches(setup), len(setup.dataset.val))
    network.eval()
    with torch.inference_mode(), autocast(setup.device, setup.precision):
        return evaluate(lambda views: network(to_input(views)), batches, setup.device)


def prepare_teacher(setup: Setup, source: str) -> Teacher:
    """The teacher at `source` (run:DIR, file:PATH or timm:NAME), its error on the validation images printed.

    One that is close to guessing is pointed out, for its classes or its normalisation are then probably wrong.
    """
    dataset = setup.dataset
    teacher = load_teacher(setup.recipe.teacher, source, dataset, setup.recipe.student.name)
    try_out(teacher.network, f"of the teacher {source}", 1, dataset.channels, teacher.input_format.size or dataset.size)
    teacher.to(setup.device)
    with show_progress(setup.console) as bar, autocast(setup.device, setup.precision):
        scores = evaluate(teacher, counted(bar, "teacher", validation_batches(setup), len(dataset.val)), setup.device)
    if not math.isfinite(scores.val_loss):
        raise InputError(f"the teacher {source} answers with numbers that are not finite; its weights are of no use")
    say(setup.console, f"teacher {source}: error {scores.top1_error:.2f} % on the validation images")
    guessing = 100 - 100 / len(setup.dataset.classes)
    if scores.top1_error > 0.9 * guessing:
        say(
            setup.console,
            "warning: the teacher does little better than guess; are its classes in the data's order, and is its "
            "normalisation (teacher.mean, teacher.std) right?",
        )
    return teacher
