"""The libraries that distil too: timm's task as its train.py drives it, torchdistill's box as its example drives it."""

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
from training_benchmark.turns import Opening, Step, always
from training_benchmark.work import Work, batch_in_place, student_of, teacher_network

TIMM_VIEWS = "rand-m9-n2"
LEVEL = 9


class PillowImages(TorchDataset[Any]):
    """Images in memory, each opened with Pillow when it is asked for, as torchvision's CIFAR100 has them."""

    def __init__(self, images: ArrayImages, transform: Callable[[Image.Image], Any] | None = None) -> None:
        self._images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        assert self.transform is not None
        return self.transform(Image.fromarray(self._images.images[index])), int(self._images.labels[index])


class TimmTraining:
    """One update of timm's train.py: its task's loss, backward, clipping, optimiser, and the loss read."""

    def __init__(self, context: TrainContext) -> None:
        from timm.task import DistillationTeacher, LogitDistillationTask

        settings, student = context.recipe.supervision, student_of(context)
        self._context = context
        self._task = LogitDistillationTask(
            student,
            DistillationTeacher(teacher_network(context), device=context.device),
            criterion=nn.CrossEntropyLoss(),
            distill_loss_weight=settings.weight,
            task_loss_weight=1.0,
            temperature=settings.temperature,
            device=context.device,
            verbose=False,
        )
        self._optimizer = create_optimizer(student, context.recipe.optimization)  # timm's, by timm's factory
        if context.recipe.run.compile:
            self._task.compile()
        self._task.get_trainable_module().train()

    def step(self, images: Tensor, labels: Tensor) -> float:
        """The loss; `images` normalised, float32 [N,C,H,W] on the device."""
        from timm.utils import dispatch_clip_grad

        images = images.contiguous(memory_format=torch.channels_last)
        with autocast(self._context.device, self._context.precision):
            loss = self._task(images, labels)["loss"]
        loss.backward()
        clip_norm = self._context.recipe.optimization.clip_norm
        dispatch_clip_grad(self._task.get_clip_parameters(), value=clip_norm, mode="norm")
        self._optimizer.step()
        told = loss.item()
        self._optimizer.zero_grad()
        return float(told)


class TorchdistillTraining:
    """One iteration of torchdistill's image_classification example, its distillation box made by configuration."""

    def __init__(
        self, context: TrainContext, loader: dict[str, Any] | None = None, data: dict[str, Any] | None = None
    ) -> None:
        """`loader` says how the box is to load the set "train" of `data`."""
        from torchdistill.core.distillation import get_distillation_box
        from torchdistill.misc.log import MetricLogger

        self._context, self._metrics = context, MetricLogger()
        teacher, student = teacher_network(context), student_of(context)
        if context.recipe.run.compile:
            teacher.compile()
            student.compile()
        config = {**_torchdistill_config(context), "train_data_loader": loader or {}}
        self._box = get_distillation_box(teacher, student, data or {}, config, context.device, None, False, 1)
        self._box.pre_epoch_process(epoch=0)

    @property
    def batches(self) -> Iterable[Any]:
        """What the box loads: images, labels, and a dict of what else there is."""
        batches: Iterable[Any] = self._box.train_data_loader
        return batches

    def step(self, images: Tensor, labels: Tensor, others: dict[str, Any] | None = None) -> float:
        """The loss; `images` normalised, float32 [N,C,H,W]."""
        images, labels = images.to(self._context.device), labels.to(self._context.device)
        with autocast(self._context.device, self._context.precision):
            loss = self._box.forward_process(images, labels, others)
        self._box.post_forward_process(loss=loss)
        told = loss.item()
        self._metrics.update(loss=told, lr=self._box.optimizer.param_groups[0]["lr"])
        return float(told)


def _torchdistill_config(context: TrainContext) -> dict[str, Any]:
    """As in configs/sample/cifar10/kd, with the recipe's numbers."""
    settings, optimization = context.recipe.supervision, context.recipe.optimization
    paths = {"student_module_path": ".", "teacher_module_path": "."}
    ends = {"student_module_io": "output", "teacher_module_io": "output"}
    weights = {"temperature": settings.temperature, "alpha": 1.0, "beta": settings.weight}
    divergence = {"key": "KDLoss", "kwargs": {**paths, **ends, **weights, "reduction": "batchmean"}}
    descent = {
        "lr": optimization.learning_rate,
        "momentum": optimization.momentum,
        "weight_decay": optimization.weight_decay,
        "nesterov": True,
    }
    return {
        "num_epochs": 1,
        "teacher": {"forward_proc": "forward_batch_only", "requires_grad": False},
        "student": {"forward_proc": "forward_batch_only", "requires_grad": True},
        "optimizer": {"key": "SGD", "kwargs": descent, "max_grad_norm": optimization.clip_norm},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {"sub_terms": {"kd": {"criterion": divergence, "weight": 1.0}}},
        },
    }


def timm_in_place(work: Work) -> Opening:
    training, (images, labels) = TimmTraining(work.context), batch_in_place(work.context)
    return always(lambda: training.step(images, labels))


def timm_loader_inside(work: Work) -> Opening:
    """With timm's loader and transforms in the process that trains."""
    return _fed(TimmTraining(work.context).step, _timm_loader(work, 0))


def timm_loader_beside(work: Work) -> Opening:
    """With timm's loader and transforms in worker processes."""
    return _fed(TimmTraining(work.context).step, _timm_loader(work, work.workers))


def _timm_loader(work: Work, workers: int) -> Iterable[Any]:
    from timm.data import create_loader
    from torchvision.transforms import RandomCrop

    context, dataset = work.context, work.context.dataset
    images = PillowImages(_in_memory(context))
    loader = create_loader(
        images,
        input_size=(dataset.channels, *dataset.size),
        batch_size=context.recipe.optimization.global_batch,
        is_training=True,
        auto_augment=TIMM_VIEWS,
        mean=dataset.mean,
        std=dataset.std,
        num_workers=workers,
        persistent_workers=False,
        pin_memory=work.on_gpu,
        device=context.device,
    )
    assert images.transform is not None
    images.transform.transforms[0] = RandomCrop(dataset.size, padding=4)  # instead of a random resized crop
    return loader


def torchdistill_in_place(work: Work) -> Opening:
    training, (images, labels) = TorchdistillTraining(work.context), batch_in_place(work.context)
    return always(lambda: training.step(images, labels))


def torchdistill_loader_inside(work: Work) -> Opening:
    """With torchvision's transforms in torchdistill's loader, in the process that trains."""
    return _torchdistill_loading(work, 0)


def torchdistill_loader_beside(work: Work) -> Opening:
    """With torchvision's transforms in torchdistill's loader, in worker processes."""
    return _torchdistill_loading(work, work.workers)


def _torchdistill_loading(work: Work, workers: int) -> Opening:
    data = {"train": PillowImages(_in_memory(work.context), _torchvision_transform(work.context))}
    loader = {
        "dataset_id": "train",
        "sampler": {"class_or_func": RandomSampler},
        "kwargs": {
            "batch_size": work.context.recipe.optimization.global_batch,
            "num_workers": workers,
            "pin_memory": work.on_gpu,
            "drop_last": True,
        },
    }
    training = TorchdistillTraining(work.context, loader, data)
    return _fed(training.step, training.batches)


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


def _in_memory(context: TrainContext) -> ArrayImages:
    assert isinstance(context.dataset.train, ArrayImages)
    return context.dataset.train


def _fed(step: Callable[..., object], loader: Iterable[Any]) -> Opening:
    """A step on batch after batch of `loader`, whose processes live from the beginning of a turn to its end."""

    @contextmanager
    def opened() -> Iterator[Step]:
        with closing(_endless(loader)) as batches:
            yield lambda: step(*next(batches))

    return opened


def _endless(loader: Iterable[Any]) -> Generator[Any, None, None]:
    while True:
        yield from loader
