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

import kdaug.training.setup
from kdaug.config import Network, Optimization, Recipe, Run, Supervision, Views
from kdaug.data import ArrayImages, Dataset
from kdaug.data.images import channel_statistics
from kdaug.data.named import class_names, read_cifar
from kdaug.networks import InputFormat, create_network
from kdaug.supervision import Teacher
from kdaug.training.optimization import available_cores
from kdaug.training.resolving import resolve
from kdaug.training.setup import Setup, check_training, create_student, prepare
from kdaug.training.viewing import training_views

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

    setup: Setup
    source: str
    folder: Path
    held: ExitStack

    @property
    def on_gpu(self) -> bool:
        return self.setup.device.type == "cuda"

    @property
    def workers(self) -> int:
        """Processes beside the network that a peer may use: as many as kdaug uses threads for its views."""
        return available_cores() if self.on_gpu else 1


def images_of(folder: Path | None) -> Images:
    """CIFAR-100 if it lies in `folder` in one of its official forms, otherwise random images of its kind."""
    read = read_cifar("cifar-100", folder) if folder else None
    train, val = read or (_random_images(RANDOM_IMAGES), _random_images(1))
    mean, std = channel_statistics(train.images)
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
    with mock.patch.object(kdaug.training.setup, "load_dataset", return_value=images.dataset):
        setup = prepare(resolve(recipe), Console(quiet=True))
    check_training(setup)
    return Work(setup, images.source, folder, held)


def student_of(setup: Setup) -> nn.Module:
    """The student with the weights that every contender begins with, on the device, in channels-last memory."""
    return create_student(setup).to(setup.device, memory_format=torch.channels_last)


def teacher_network(setup: Setup) -> nn.Module:
    """A network of the student's architecture with other random weights, frozen, in evaluation mode."""
    torch.manual_seed(1)
    dataset = setup.dataset
    network = create_network(setup.recipe.student.name, len(dataset.classes), dataset.channels)
    return network.to(setup.device, memory_format=torch.channels_last).requires_grad_(False).eval()


def teacher_of(setup: Setup) -> Teacher:
    """The same as kdaug's teacher."""
    teacher = Teacher(teacher_network(setup), InputFormat(setup.dataset.mean, setup.dataset.std, None))
    teacher.to(setup.device)
    if setup.recipe.run.compile:
        teacher.network.compile()
    return teacher


def batch_in_place(setup: Setup) -> tuple[Tensor, Tensor]:
    """The first batch on the device: views normalised, float32 [N,C,H,W] channels last, and labels int64 [N]."""
    viewed = next(training_views(setup, 0)).to(setup.device)
    return setup.card.input_format.prepare(viewed.pixels), viewed.labels
