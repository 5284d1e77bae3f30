"""Other distillation libraries: timm's task as in its train.py, torchdistill's box as in its example."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import RandomSampler

from kdaug.data import ArrayImages
from kdaug.device import autocast
from kdaug.training.context import TrainContext
from kdaug.training.optim import create_optimizer
from training_benchmark.steps import BareStep
from training_benchmark.turns import OpenStep, Step
from training_benchmark.workload import TrainWorkload, first_batch, student_network, teacher_network

TIMM_VIEWS = "rand-m9-n2"
LEVEL = 9


class PillowImages(TorchDataset[Any]):
    """Images in memory that are converted to Pillow one by one, as in torchvision's CIFAR100."""

    def __init__(self, images: ArrayImages, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self._images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image = Image.fromarray(self._images.images[index])
        return self.transform(image) if self.transform else image, int(self._images.labels[index])


class TimmStep:
    """One update of timm's train.py: the task's loss, backward, clipping, optimizer; the loss is read back."""

    def __init__(self, context: TrainContext) -> None:
        from timm.task import DistillationTeacher, LogitDistillationTask

        settings, student = context.recipe.supervision, student_network(context)
        self._context = context
        self._task: Any = LogitDistillationTask(
            student,
            DistillationTeacher(teacher_network(context), device=context.device),
            criterion=nn.CrossEntropyLoss(),
            distill_loss_weight=settings.weight,
            task_loss_weight=1.0,
            temperature=settings.temperature,
            device=context.device,
            verbose=False,
        )
        self._optimizer = create_optimizer(student, context.recipe.optimization)  # created by timm's factory
        if context.recipe.run.compile:
            self._task.compile()
        self._task.get_trainable_module().train()

    def __call__(self, images: Tensor, labels: Tensor) -> float:
        """The loss; `images` normalized, float32 [N,C,H,W] on the device."""
        from timm.utils import dispatch_clip_grad

        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self._context.device, self._context.precision):
            loss = self._task(images, labels)["loss"]
        loss.backward()
        clip_norm: Any = self._context.recipe.optimization.clip_norm
        dispatch_clip_grad(self._task.get_clip_parameters(), value=clip_norm, mode="norm")
        self._optimizer.step()
        value = loss.item()
        self._optimizer.zero_grad()
        return float(value)


class TorchdistillStep:
    """One iteration of torchdistill's image_classification example, with a distillation box from a configuration."""

    def __init__(
        self, context: TrainContext, loader: dict[str, Any] | None = None, data: dict[str, Any] | None = None
    ) -> None:
        """`loader` configures how the box loads the set "train" of `data`."""
        from torchdistill.core.distillation import get_distillation_box
        from torchdistill.misc.log import MetricLogger

        self._context, self._metrics = context, MetricLogger()
        teacher, student = teacher_network(context), student_network(context)
        if context.recipe.run.compile:
            teacher.compile()
            student.compile()
        config = {**_torchdistill_config(context), "train_data_loader": loader or {}}
        self._box = get_distillation_box(teacher, student, data or {}, config, context.device, None, False, 1)
        self._box.pre_epoch_process(epoch=0)

    @property
    def batches(self) -> Iterable[Any]:
        """The batches of the box's loader: images, labels, and a dict of other inputs."""
        batches: Iterable[Any] = self._box.train_data_loader
        return batches

    def __call__(self, images: Tensor, labels: Tensor, others: dict[str, Any] | None = None) -> float:
        """The loss; `images` normalized, float32 [N,C,H,W]."""
        images, labels = images.to(self._context.device), labels.to(self._context.device)
        with autocast(self._context.device, self._context.precision):
            loss = self._box.forward_process(images, labels, others)
        self._box.post_forward_process(loss=loss)
        value = float(loss.item())
        self._metrics.update(loss=value, lr=self._box.optimizer.param_groups[0]["lr"])
        return value


def _torchdistill_config(context: TrainContext) -> dict[str, Any]:
    """As in configs/sample/cifar10/kd, with the recipe's numbers."""
    settings, optimization = context.recipe.supervision, context.recipe.optimization
    paths = {"student_module_path": ".", "teacher_module_path": "."}
    outputs = {"student_module_io": "output", "teacher_module_io": "output"}
    weights = {"temperature": settings.temperature, "alpha": 1.0, "beta": settings.weight}
    divergence = {"key": "KDLoss", "kwargs": {**paths, **outputs, **weights, "reduction": "batchmean"}}
    sgd = {
        "lr": optimization.learning_rate,
        "momentum": optimization.momentum,
        "weight_decay": optimization.weight_decay,
        "nesterov": True,
    }
    return {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": sgd, "max_grad_norm": optimization.clip_norm},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": divergence, "weight": 1.0}}},
        },
    }


def timm_fixed_batch(workload: TrainWorkload) -> OpenStep:
    return _step_on(TimmStep(workload.context), [first_batch(workload.context)])


def timm_without_workers(workload: TrainWorkload) -> OpenStep:
    """With timm's loader and transforms in the training process."""
    return _step_on(TimmStep(workload.context), _timm_loader(workload, 0))


def timm_with_workers(workload: TrainWorkload) -> OpenStep:
    """With timm's loader and transforms in worker processes."""
    return _step_on(TimmStep(workload.context), _timm_loader(workload, workload.workers))


def _timm_loader(workload: TrainWorkload, workers: int) -> Iterable[Any]:
    from timm.data import create_loader
    from torchvision.transforms import RandomCrop

    context, dataset = workload.context, workload.context.dataset
    images: Any = PillowImages(_images_in_memory(context))
    loader: Iterable[Any] = create_loader(
        images,
        input_size=(dataset.channels, *dataset.size),
        batch_size=context.recipe.optimization.global_batch,
        is_training=True,
        auto_augment=TIMM_VIEWS,
        mean=dataset.mean,
        std=dataset.std,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=workload.on_gpu,
        device=context.device,
    )
    images.transform.transforms[0] = RandomCrop(dataset.size, padding=4)  # instead of a random resized crop
    return loader


def timm_loader_with_bare_step(workload: TrainWorkload) -> OpenStep:
    """The bare step on batches of timm's loader for image folders, with as many workers as kdaug's loader."""
    from timm.data import ImageDataset, create_loader

    context, dataset = workload.context, workload.context.dataset
    loader: Iterable[Any] = create_loader(
        ImageDataset(f"{context.recipe.data.root}/train"),
        input_size=(dataset.channels, *dataset.size),
        batch_size=context.recipe.optimization.global_batch,
        is_training=True,
        auto_augment=TIMM_VIEWS,
        interpolation="bicubic",
        mean=dataset.mean,
        std=dataset.std,
        num_workers=context.recipe.data.workers,
        persistent_workers=False,
        pin_memory=workload.on_gpu,
        device=context.device,
    )
    return _step_on(BareStep(context), loader)


def torchdistill_fixed_batch(workload: TrainWorkload) -> OpenStep:
    return _step_on(TorchdistillStep(workload.context), [first_batch(workload.context)])


def torchdistill_without_workers(workload: TrainWorkload) -> OpenStep:
    """With torchvision's transforms in torchdistill's loader, in the training process."""
    return _torchdistill_loading(workload, 0)


def torchdistill_with_workers(workload: TrainWorkload) -> OpenStep:
    """With torchvision's transforms in torchdistill's loader, in worker processes."""
    return _torchdistill_loading(workload, workload.workers)


def _torchdistill_loading(workload: TrainWorkload, workers: int) -> OpenStep:
    data = {"train": PillowImages(_images_in_memory(workload.context), _torchvision_transform(workload.context))}
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": RandomSampler},
        "kwargs": {
            "batch_size": workload.context.recipe.optimization.global_batch,
            "num_workers": workers,
            "pin_memory": workload.on_gpu,
            "drop_last": True,
        },
    }
    step = TorchdistillStep(workload.context, loader, data)
    return _step_on(step, step.batches)


def _torchvision_transform(context: TrainContext) -> Callable[[Image.Image], Any]:
    from torchvision import transforms

    dataset = context.dataset
    transform: Callable[[Image.Image], Any] = transforms.Compose(
        [
            transforms.RandomCrop(dataset.size, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.RandAugment(2, LEVEL),
            transforms.ToTensor(),
            transforms.Normalize(dataset.mean, dataset.std),
        ]
    )
    return transform


def _images_in_memory(context: TrainContext) -> ArrayImages:
    assert isinstance(context.dataset.train, ArrayImages)
    return context.dataset.train


def _step_on(train_step: Callable[..., object], loader: Iterable[Any]) -> OpenStep:
    """A step on the batches of `loader`, over and over. Its worker processes live as long as the turn.

    On a GPU cuDNN benchmarks its algorithms, as the peers' own training scripts set it.
    """

    @contextmanager
    def open_step() -> Iterator[Step]:
        torch.backends.cudnn.benchmark = True
        try:
            with closing(_endless(loader)) as batches:
                yield lambda: train_step(*next(batches))
        finally:
            torch.backends.cudnn.benchmark = False

    return open_step


def _endless(loader: Iterable[Any]) -> Generator[Any, None, None]:
    while True:
        yield from loader
