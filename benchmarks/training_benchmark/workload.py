"""What all contenders train: images, a recipe with its context, student and teacher."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from decode import write_photos
from kdaug.config import Data, Network, Optimization, Recipe, Run, Supervision, Views
from kdaug.data import ArrayImages, Dataset, load_dataset
from kdaug.data.images import channel_mean_std
from kdaug.data.named import class_names, read_cifar
from kdaug.device import available_cores, compile_if_set
from kdaug.networks import InputFormat, create_network
from kdaug.supervision import Teacher
from kdaug.training.batches import training_batches
from kdaug.training.context import TrainContext, build_context, check_trainable, create_student
from kdaug.training.resolve import resolve

RANDOM_IMAGES = 50_000
RANDOM_PHOTOS, PHOTO_CLASSES = 2_048, 1_000
"""Number and classes of random images of another size than CIFAR's."""
PHOTOS, PHOTO_SIZE = 256, (500, 375)
EPOCHS = 10_000
"""More than any benchmark trains: the training loop never ends, evaluates or saves a checkpoint."""
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Images:
    """A data set in memory, and its source for the report."""

    dataset: Dataset
    source: str


@dataclass(frozen=True)
class TrainWorkload:
    """A training context, the source of its images, and a folder for run directories.

    resources: what must be closed after measuring.
    """

    context: TrainContext
    source: str
    folder: Path
    resources: ExitStack

    @property
    def on_gpu(self) -> bool:
        return self.context.device.type == "cuda"

    @property
    def workers(self) -> int:
        """The number of worker processes of a peer: as many as kdaug uses threads for views."""
        return available_cores() if self.on_gpu else 1


def load_images(folder: Path | None, side: int | None = None) -> Images:
    """CIFAR-100 from `folder` if it is there in an official format, otherwise random images of the same shape.

    side: height and width of random images with ImageNet's number of classes instead.
    """
    if side is not None:
        train, val = _random_images(RANDOM_PHOTOS, side, PHOTO_CLASSES), _random_images(1, side, PHOTO_CLASSES)
        mean, std = channel_mean_std(train.images)
        names = tuple(map(str, range(PHOTO_CLASSES)))
        dataset = Dataset("random", names, train, val, (side, side), mean, std, content=f"random-{side}")
        return Images(dataset, f"{RANDOM_PHOTOS:,} training images: random bytes, {side} x {side}, 1,000 classes")
    cifar = read_cifar("cifar-100", folder) if folder else None
    train, val = cifar or (_random_images(RANDOM_IMAGES), _random_images(1))
    mean, std = channel_mean_std(train.images)
    name = "cifar-100" if cifar else "random"
    dataset = Dataset(name, class_names("cifar-100"), train, val, (32, 32), mean, std, content=name)
    source = "CIFAR-100" if cifar else "random bytes in the number, size and classes of CIFAR-100"
    return Images(dataset, f"{len(train):,} training images: {source}")


def load_photos(folder: Path, side: int) -> tuple[Images, Data]:
    """Synthetic photos in `folder` that training decodes, crops and resizes to `side`; and the recipe's settings."""
    for name, count in (("train/a", PHOTOS // 2), ("train/b", PHOTOS // 2), ("val/a", 1), ("val/b", 1)):
        write_photos(folder / name, *PHOTO_SIZE, count)
    data = Data(name="folder", root=str(folder), image_size=side)
    width, height = PHOTO_SIZE
    return Images(load_dataset(data), f"{PHOTOS} JPEG files, {width} x {height}, random-resized crops of {side}"), data


def _random_images(count: int, side: int = 32, classes: int = 100) -> ArrayImages:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, side, side, 3), np.uint8)
    return ArrayImages(images, generator.integers(0, classes, count))


def bench_recipe(
    network: str, batch: int, policy: str, k: int, folder: Path, device: str = "cpu", compiled: bool = False,
    cuda_graphs: bool = False, data: Data | None = None,
) -> Recipe:  # fmt: skip
    """The recipe of all contenders; other settings have their defaults."""
    return Recipe(
        data=data or Data(),
        views=Views(policy=policy, crop="random-resized" if data else "pad"),
        student=Network(network),
        supervision=Supervision(weight=1.0, k=k, temperature=TEMPERATURE),
        optimization=Optimization(epochs=EPOCHS, global_batch=batch),
        run=Run(
            dir=str(folder / "run"),
            device=device,
            compile=compiled,
            cuda_graphs=cuda_graphs,
            evaluate_every=EPOCHS,
            checkpoint_minutes=1e6,
        ),
    )


def prepare_workload(recipe: Recipe, images: Images, folder: Path, resources: ExitStack) -> TrainWorkload:
    """The context of `recipe` on `images`. Raises InputError if device, network or batch cannot be used."""
    context = build_context(resolve(recipe), Console(quiet=True, force_terminal=False), dataset=images.dataset)
    check_trainable(context)
    return TrainWorkload(context, images.source, folder, resources)


def student_network(context: TrainContext) -> nn.Module:
    """The student with the initial weights of all contenders, on the device, channels last."""
    return _to_device(create_student(context), context)


def teacher_network(context: TrainContext) -> nn.Module:
    """A network of the student's architecture with other random weights, on the device, frozen, in eval mode."""
    torch.manual_seed(1)
    dataset = context.dataset
    network = create_network(context.recipe.student.name, len(dataset.classes), dataset.channels)
    return _to_device(network, context).requires_grad_(False).eval()


def _to_device(network: Any, context: TrainContext) -> nn.Module:
    moved: nn.Module = network.to(context.device, memory_format=torch.channels_last)
    return moved


def bench_teacher(context: TrainContext) -> Teacher:
    """The teacher network as kdaug's Teacher."""
    teacher = Teacher(teacher_network(context), InputFormat(context.dataset.mean, context.dataset.std, None))
    teacher.to(context.device)
    compile_if_set(teacher.network, context.recipe.run)
    return teacher


def first_batch(context: TrainContext) -> tuple[Tensor, Tensor]:
    """The first batch on the device: views normalized, float32 [N,C,H,W] channels last, and labels int64 [N]."""
    view_batch = next(training_batches(context, 0)).to(context.device)
    return context.network_info.input_format.normalize(view_batch.pixels), view_batch.labels
