"""The teacher: any network, frozen, applied to the student's views with its own normalization and resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.data import ImageNetInfo
from torch import Tensor, nn

from kdaug import config
from kdaug.data import Dataset
from kdaug.errors import InputError
from kdaug.networks import (
    InputFormat,
    check_published,
    classifier_size,
    create_network,
    find_weights,
    load_network,
    load_state,
    match_names,
    read_weights,
)


class Teacher(nn.Module):
    """A frozen network that predicts on uint8 views. It stays in evaluation mode, also after `train()`.

    class_indices: indices of the network outputs for the dataset's classes, in their order; None: all outputs.
    """

    class_indices: Tensor | None

    def __init__(
        self, network: nn.Module, input_format: InputFormat, class_indices: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.register_buffer(
            "class_indices", None if class_indices is None else torch.tensor(class_indices), persistent=False
        )
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.input_format = input_format
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        return self

    @property
    def members(self) -> tuple[Teacher, ...]:
        """Itself, as a teacher of one network."""
        return (self,)

    def forward(self, views: Tensor, indices: NDArray[np.int64] | None = None) -> Tensor:
        """Logits [N,C] for views uint8 [N,H,W,channels], without gradient; not inference tensors.

        indices: not used, see `TeacherEnsemble`.
        """
        with torch.inference_mode():
            logits: Tensor = self.network(self.input_format.normalize(views))
        return logits.clone() if self.class_indices is None else logits[:, self.class_indices].clone()


class TeacherEnsemble(nn.Module):
    """Several teachers for the same classes as one.

    Their probabilities are averaged, as in Faghri et al. (arXiv 2303.08983, "reinforced" datasets). With `fold`, they
    are cross-fitted instead: predictions for views of a training image come from the teacher trained without it, as
    predictions are made out of sample in stacking (Wolpert, 1992) and in double machine learning (Chernozhukov et al.,
    2018, arXiv 1608.00060).

    fold: int64 [training images], the teacher for each; None: all of them for each.
    """

    def __init__(self, members: Sequence[Teacher], fold: NDArray[np.int64] | None = None) -> None:
        super().__init__()
        self._members, self.fold = nn.ModuleList(members), fold

    @property
    def members(self) -> tuple[Teacher, ...]:
        """The teachers."""
        return tuple(self._members)  # type: ignore[arg-type]

    def forward(self, views: Tensor, indices: NDArray[np.int64] | None = None) -> Tensor:
        """Logits [N,C] for views uint8 [N,H,W,channels], without gradient. Those of an average are log-probabilities.

        indices: the training image of each view, [N]; None: images that no teacher was trained on, such as validation
        images, for which also cross-fitted teachers are averaged.
        """
        if self.fold is None or indices is None:
            log_probs = torch.stack([member(views).float().log_softmax(1) for member in self.members])
            return log_probs.logsumexp(0) - math.log(len(self.members))
        if not len(views):
            return self.members[0](views)  # type: ignore[no-any-return]
        fold = self.fold[indices % len(self.fold)]
        rows = [torch.from_numpy(np.flatnonzero(fold == each)).to(views.device) for each in range(len(self.members))]
        logits = [member(views[own]) for member, own in zip(self.members, rows, strict=True) if len(own)]
        return torch.cat(logits)[torch.cat(rows).argsort()]


AnyTeacher = Teacher | TeacherEnsemble


def average_of(teacher: AnyTeacher) -> AnyTeacher:
    """`teacher` for images that it was not trained on: cross-fitted teachers are averaged."""
    return teacher if isinstance(teacher, Teacher) else TeacherEnsemble(teacher.members)


def load_teacher(
    settings: config.Teacher, source: str, dataset: Dataset, assumed: config.Network | None = None
) -> Teacher:
    """Loads one teacher from `source`: bundled, run:DIR, file:PATH or timm:NAME.

    assumed: the network of a weight file that does not name it, see `config.teacher_network`. A teacher with more
    classes than the dataset predicts the dataset's classes only, matched by name. For ImageNet weights this needs the
    dataset's classes to have ImageNet's names (n01440764, ...).

    Raises InputError if the teacher cannot be loaded, lacks a class of the dataset, or takes other channels.
    """
    config.check_source(source)
    kind, _, location = source.partition(":")
    if kind == "bundled":
        with resources.as_file(resources.files("kdaug.data") / "omniglot" / "teacher.safetensors") as bundled:
            teacher = _from_kdaug_file(bundled, settings, dataset)
    elif kind == "run":
        teacher = _from_kdaug_file(find_weights(source, "teacher.source"), settings, dataset)
    elif kind == "file":
        path = find_weights(source, "teacher.source")
        teacher = _from_file(path, settings, dataset, assumed or config.Network())
    else:
        teacher = _from_timm(location, settings, dataset)
    _check_channels(teacher.input_format.mean, dataset)
    return teacher


def _check_channels(mean: Sequence[float], dataset: Dataset) -> None:
    if len(mean) != dataset.channels:
        raise InputError(f"the teacher takes {len(mean)} channel(s), but the data have {dataset.channels}")


def _from_kdaug_file(path: Path, settings: config.Teacher, dataset: Dataset) -> Teacher:
    """The teacher from a weight file that kdaug wrote, which names its network, classes and input."""
    network, info = load_network(path)
    class_indices = _class_indices(info.classes, dataset.classes)
    if class_indices is None and info.classes != dataset.classes:
        own, wanted = len(info.classes), len(dataset.classes)
        difference = f"{own} classes, but the data have {wanted}" if own != wanted else "other classes than the data"
        raise InputError(f"the teacher {path} has {difference}")
    return Teacher(network, _with_image_size(info.input_format, settings), class_indices)


def _from_file(path: Path, settings: config.Teacher, dataset: Dataset, assumed: config.Network) -> Teacher:
    tensors, info = read_weights(path)
    if info is not None:
        for name in ("network", "mean", "std", "arguments"):
            value = getattr(info, name)
            if getattr(settings, name) not in (None, {}, value):
                raise InputError(f"teacher.{name} is set, but weight file {path} has its own: {value}", "leave it out")
        return _from_kdaug_file(path, settings, dataset)
    name, arguments, classes = assumed.name, assumed.arguments, len(dataset.classes)
    network = create_network(name, classes, dataset.channels, arguments=arguments)
    tensors = match_names(network, tensors)
    class_indices = _imagenet_indices(classifier_size(network, tensors), dataset)
    if class_indices is not None:
        classes = classifier_size(network, tensors)
        network = create_network(name, classes, dataset.channels, arguments=arguments)
    load_state(network, tensors, classes, path)
    mean, std = settings.mean or dataset.mean, settings.std or dataset.std
    return Teacher(network, _with_image_size(InputFormat(mean, std, None), settings), class_indices)


def _from_timm(name: str, settings: config.Teacher, dataset: Dataset) -> Teacher:
    """The teacher with timm's published weights. Everything is checked before they are downloaded."""
    check_published(name)
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    class_indices = _imagenet_indices(published.num_classes, dataset)
    if class_indices is None and published.num_classes != len(dataset.classes):
        raise InputError(
            f"timm's {name} has {published.num_classes} classes, but the data have {len(dataset.classes)}",
            "train a teacher on these data (set teacher.source to train and teacher.network to its network), or, if "
            "they are classes of ImageNet, name their folders as ImageNet does (n01440764, ...)",
        )
    _check_channels(published.mean, dataset)
    network = create_network(
        name, published.num_classes, dataset.channels, pretrained=True, arguments=settings.arguments
    )
    height, width = published.input_size[1:]
    side = settings.arguments.get("img_size")
    input_format = InputFormat(published.mean, published.std, (side, side) if type(side) is int else (height, width))
    return Teacher(network, _with_image_size(input_format, settings), class_indices)


def _class_indices(classes: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Index in `classes` of each class in `wanted`; None if one is missing, or if both are the same."""
    index = {name: i for i, name in enumerate(classes)}
    if list(wanted) == list(classes) or any(name not in index for name in wanted):
        return None
    return [index[name] for name in wanted]


def _imagenet_indices(outputs: int, dataset: Dataset) -> list[int] | None:
    """Output index of each class of the dataset in a network of `outputs` outputs; None unless it is for ImageNet's
    1,000 classes and has them all."""
    names: list[str] = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    return _class_indices(names, dataset.classes) if outputs == len(names) else None


def _with_image_size(input_format: InputFormat, settings: config.Teacher) -> InputFormat:
    if settings.image_size is None:
        return input_format
    return replace(input_format, size=(settings.image_size, settings.image_size))
