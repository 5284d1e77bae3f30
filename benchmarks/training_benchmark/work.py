"""What is trained: images, a recipe made ready, student and teacher. The same for every contender."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

import kdaug.training.context
from kdaug.config import Network, Optimization, Recipe, Run, Supervision, Views
from kdaug.data import ArrayImages, Dataset
from kdaug.data.images import channel_mean_std
from kdaug.data.named import class_names, read_cifar
from kdaug.device import available_cores
from kdaug.networks import InputFormat, create_network
from kdaug.supervision import Teacher
from kdaug.training.batches import training_batches
from kdaug.training.context import TrainContext, build_context, check_trainable, create_student
from kdaug.training.resolve import resolve

RANDOM_IMAGES = 50_000
EPOCHS = 10_000
"""More than any benchmark takes, so that no loop comes to its end."""
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Images:
    """A data set held in memory and, in words, where it is from."""

    dataset: Dataset
    source: str


@dataclass(frozen=True)
class Work:
    """A recipe made ready for its device, where its images are from, and a folder for what runs write.

    held: what is to be closed when everything has been measured.
    """

    context: TrainContext
    source: str
    folder: Path
    held: ExitStack

    @property
    def on_gpu(self) -> bool:
        return self.context.device.type == "cuda"

    @property
    def workers(self) -> int:
        """Processes beside the network that a peer may use: as many as kdaug uses threads for its views."""
        return available_cores() if self.on_gpu else 1


def images_of(folder: Path | None) -> Images:
    """CIFAR-100 if it lies in `folder` in one of its official forms, otherwise random images of its kind."""
    read = read_cifar("cifar-100", folder) if folder else None
    train, val = read or (_random_images(RANDOM_IMAGES), _random_images(1))
    mean, std = channel_mean_std(train.images)
    name = "cifar-100" if read else "random"
    dataset = Dataset(name, class_names("cifar-100"), train, val, (32, 32), mean, std, content=name)
    source = "CIFAR-100" if read else "random bytes, of CIFAR-100's number, size and classes"
    return Images(dataset, f"{len(train):,} training images: {source}")


def _random_images(count: int) -> ArrayImages:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, 32, 32, 3), np.uint8)
    return ArrayImages(images, generator.integers(0, 100, count))


def recipe_of(network: str, batch: int, device: str, compiled: bool, policy: str, k: int, folder: Path) -> Recipe:
    """The recipe that everything is measured with; all else as a recipe has it by default."""
    return Recipe(
        views=Views(policy=policy),
        student=Network(network),
        supervision=Supervision(weight=1.0, k=k, temperature=TEMPERATURE),
        optimization=Optimization(epochs=EPOCHS, global_batch=batch),
        run=Run(dir=str(folder / "run"), device=device, compile=compiled),
    )


def work_of(recipe: Recipe, images: Images, folder: Path, held: ExitStack) -> Work:
    """`recipe` on `images`, which no recipe can name. InputError if the device, the network or the batch cannot be."""
    with mock.patch.object(kdaug.training.context, "load_dataset", return_value=images.dataset):
        context = build_context(resolve(recipe), Console(quiet=True))
    check_trainable(context)
    return Work(context, images.source, folder, held)


def student_of(context: TrainContext) -> nn.Module:
    """The student with the weights that every contender begins with, on the device, in channels-last memory."""
    return create_student(context).to(context.device, memory_format=torch.channels_last)


def teacher_network(context: TrainContext) -> nn.Module:
    """A network of the student's architecture with other random weights, frozen, in evaluation mode."""
    torch.manual_seed(1)
    dataset = context.dataset
    network = create_network(context.recipe.student.name, len(dataset.classes), dataset.channels)
    return network.to(context.device, memory_format=torch.channels_last).requires_grad_(False).eval()


def teacher_of(context: TrainContext) -> Teacher:
    """The same as kdaug's teacher."""
    teacher = Teacher(teacher_network(context), InputFormat(context.dataset.mean, context.dataset.std, None))
    teacher.to(context.device)
    if context.recipe.run.compile:
        teacher.network.compile()
    return teacher


def batch_in_place(context: TrainContext) -> tuple[Tensor, Tensor]:
    """The first batch on the device: views normalised, float32 [N,C,H,W] channels last, and labels int64 [N]."""
    view_batch = next(training_batches(context, 0)).to(context.device)
    return context.card.input_format.prepare(view_batch.pixels), view_batch.labels
