"""The teacher: any network, frozen, looking at the student's views through its own normalisation and resolution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
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
    load_network,
    load_state,
    read_weights,
)


class Teacher(nn.Module):
    """A frozen network that answers to uint8 views. It stays in evaluation mode whatever `train()` is told.

    outputs: which of its outputs stand for the data's classes, in their order; None: all, as they are.
    clean: log-probability of the label of every training image as it is, float32 [N] in main memory; None: not known.
    """

    outputs: Tensor | None
    clean: Tensor | None

    def __init__(self, network: nn.Module, input_format: InputFormat, outputs: Sequence[int] | None = None) -> None:
        super().__init__()
        self.register_buffer("outputs", None if outputs is None else torch.tensor(outputs), persistent=False)
        self.network = network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.input_format = input_format
        self.clean = None
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        super().train(False)
        return self

    def forward(self, views: Tensor) -> Tensor:
        """Logits [N,C] for views uint8 [N,H,W,channels]; plain values that carry no gradient."""
        with torch.inference_mode():
            logits: Tensor = self.network(self.input_format.prepare(views))
        return logits.clone() if self.outputs is None else logits[:, self.outputs].clone()


def load_teacher(settings: config.Teacher, source: str, dataset: Dataset, student: str) -> Teacher:
    """The teacher that `source` names: run:DIR, file:PATH or timm:NAME.

    `student` is the network assumed for a bare weight file. A teacher of more classes than the data's answers for those
    of the data; published weights for ImageNet do so if the data's classes bear ImageNet's names (n01440764, ...).
    Raises InputError if it cannot be read, lacks a class of the data, or has not their channels.
    """
    config.check_source(source)
    kind, _, place = source.partition(":")
    if kind == "run":
        teacher = _from_run(Path(place), settings, dataset)
    elif kind == "file":
        teacher = _from_file(Path(place), settings, dataset, student)
    else:
        teacher = _from_timm(place, settings, dataset)
    if len(teacher.input_format.mean) != dataset.channels:
        raise InputError(
            f"the teacher takes {len(teacher.input_format.mean)} channel(s), but the data have {dataset.channels}"
        )
    return teacher


def _from_run(directory: Path, settings: config.Teacher, dataset: Dataset) -> Teacher:
    path = directory / "last.safetensors"
    if directory.is_file():
        raise InputError(f"teacher {directory} is a file; a weight file is given as file:{directory}")
    if not path.is_file():
        raise InputError(f"{directory} is not a finished run: it holds no {path.name}")
    return _from_own_file(path, settings, dataset)


def _from_own_file(path: Path, settings: config.Teacher, dataset: Dataset) -> Teacher:
    network, card = load_network(path)
    outputs = _outputs(card.classes, dataset.classes)
    if outputs is None and card.classes != dataset.classes:
        theirs, ours = len(card.classes), len(dataset.classes)
        difference = f"{theirs} classes, but the data have {ours}" if theirs != ours else "other classes than the data"
        raise InputError(f"the teacher {path} has {difference}")
    return Teacher(network, _with_size(card.input_format, settings), outputs)


def _outputs(theirs: Sequence[str], ours: Sequence[str]) -> list[int] | None:
    """Where each of `ours` stands among `theirs`; None if one is not there, or they are the same."""
    places = {name: place for place, name in enumerate(theirs)}
    same, known = list(ours) == list(theirs), all(name in places for name in ours)
    return [places[name] for name in ours] if known and not same else None


def _imagenet_outputs(classes: int, dataset: Dataset) -> list[int] | None:
    """Where the data's classes stand in a network of `classes` outputs, if it is ImageNet's 1,000 and has them."""
    names: list[str] = ImageNetInfo("imagenet-1k").label_names()  # type: ignore[no-untyped-call]
    return _outputs(names, dataset.classes) if classes == len(names) else None


def _from_file(path: Path, settings: config.Teacher, dataset: Dataset, student: str) -> Teacher:
    if path.is_dir():
        raise InputError(f"teacher {path} is a folder; a run directory is given as run:{path}")
    tensors, card = read_weights(path)
    if card is not None:
        for name, said in (("network", card.network), ("mean", card.mean), ("std", card.std)):
            if getattr(settings, name) not in (None, said):
                raise InputError(
                    f"teacher.{name} is not for weight file {path}, which says its own: {said}; leave it out"
                )
        return _from_own_file(path, settings, dataset)
    name, classes = settings.network or student, len(dataset.classes)
    network = create_network(name, classes, dataset.channels)
    outputs = _imagenet_outputs(classifier_size(network, tensors), dataset)
    if outputs is not None:
        classes = classifier_size(network, tensors)
        network = create_network(name, classes, dataset.channels)
    load_state(network, tensors, classes, path)
    mean, std = settings.mean or dataset.mean, settings.std or dataset.std
    return Teacher(network, _with_size(InputFormat(mean, std, None), settings), outputs)


def _from_timm(name: str, settings: config.Teacher, dataset: Dataset) -> Teacher:
    check_published(name)
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    outputs = _imagenet_outputs(published.num_classes, dataset)
    if outputs is None and published.num_classes != len(dataset.classes):
        raise InputError(
            f"timm's {name} has {published.num_classes} classes, but the data have {len(dataset.classes)}; "
            "train a teacher on these data instead (teacher.source train, teacher.network NAME), or, if they are "
            "classes of ImageNet, name their folders so (n01440764, ...)"
        )
    if len(published.mean) != dataset.channels:
        raise InputError(f"the teacher takes {len(published.mean)} channel(s), but the data have {dataset.channels}")
    network = create_network(name, published.num_classes, dataset.channels, pretrained=True)
    height, width = published.input_size[1:]
    input_format = InputFormat(published.mean, published.std, (height, width))
    return Teacher(network, _with_size(input_format, settings), outputs)


def _with_size(own: InputFormat, settings: config.Teacher) -> InputFormat:
    if settings.image_size is None:
        return own
    return InputFormat(own.mean, own.std, (settings.image_size, settings.image_size))
