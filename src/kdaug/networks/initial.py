"""Initial weights of a network: from a run, a weight file or timm, with a new classifier if the classes differ."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from kdaug import config
from kdaug.errors import InputError
from kdaug.networks.create import check_published, create_network, published_mean_std
from kdaug.networks.weights import (
    NetworkInfo,
    classifier_names,
    classifier_size,
    find_weights,
    load_state,
    match_names,
    read_network_info,
    read_weights,
)

_PINNED = re.compile(r"(?P<source>.+)#(?P<digest>[0-9a-f]{10})")
_RGB = 3
_COUNTER = ".num_batches_tracked"


def split_digest(source: str) -> tuple[str, str]:
    """("file:w.pth", "0123456789") of "file:w.pth#0123456789"; the digest is empty if there is none."""
    pinned = _PINNED.fullmatch(source)
    return (pinned["source"], pinned["digest"]) if pinned else (source, "")


def pin_weights(source: str, setting: str) -> str:
    """`source` with a digest of its weight file: `file:w.pth#0123456789`.

    timm:NAME gets none. A source that already has a digest is returned unchanged. Raises InputError, which
    names `setting`, if there is no such file.
    """
    if source.startswith("timm:") or split_digest(source)[1]:
        return source
    return f"{source}#{_digest(find_weights(source, setting))}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:10]


def _find_pinned(source: str) -> Path:
    """The weight file of `source`. Raises InputError if its content is not that of the digest in `source`."""
    plain, digest = split_digest(source)
    path = find_weights(plain, "student.weights")
    if digest and _digest(path) != digest:
        raise InputError(
            f"weight file {path} has changed: its digest is #{_digest(path)}, not #{digest}",
            "restore the file, or use it as new weights, without the digest",
        )
    return path


def resolve_initial_weights(settings: config.Network, channels: int) -> config.Network:
    """`settings` with a digest of the weight file, and with the mean and std that go with the weights.

    channels: of the images; mean and std for another number are not used. Settings with a digest whose file is gone, as
    those of a run may be, stay as they are. Raises InputError if weights without a digest cannot be found, or if mean
    and std are set although the weights have their own.
    """
    if settings.weights is None:
        return settings
    if settings.weights.startswith("timm:"):
        check_published(_timm_name(settings.weights))
        return _with_mean_std(settings, _trained_input(settings, None), channels)
    pinned = pin_weights(settings.weights, "student.weights")
    try:
        path = _find_pinned(pinned)
    except InputError:
        return settings  # it has a digest
    return _with_mean_std(replace(settings, weights=pinned), _trained_input(settings, path), channels)


@dataclass(frozen=True)
class _TrainedInput:
    """The input that initial weights were trained on: mean and std per channel in 0..1, (height, width) in pixels.

    None: unknown. origin: where mean and std are known from. is_certain: whether they are those of these weights.
    """

    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    size: tuple[int, int] | None
    origin: str
    is_certain: bool


def _trained_input(settings: config.Network, path: Path | None) -> _TrainedInput:
    """The input of the initial weights of `settings`. path: their file; None: they are timm's."""
    if path is None:
        name = _timm_name(settings.initial_weights)
        published = timm.get_pretrained_cfg(name)
        assert published is not None
        size = (published.input_size[1], published.input_size[2])
        return _TrainedInput(published.mean, published.std, size, f"timm's for {name}", is_certain=True)
    info = read_network_info(path)
    if info is not None:
        return _TrainedInput(info.mean, info.std, info.size, "their own", is_certain=True)
    mean, std = published_mean_std(settings.name) or (None, None)
    return _TrainedInput(mean, std, None, f"timm's for {settings.name}", is_certain=False)


def native_image_size(settings: config.Network) -> tuple[int | None, bool]:
    """Side in pixels of the images that the initial weights of `settings`, else its network, are made for.

    None: unknown. Also whether the network takes no other images. Raises InputError if the weights cannot be found.
    """
    source, side = settings.initial_weights, settings.arguments.get("img_size")
    own_name = _timm_name(source) if source is not None and source.startswith("timm:") else settings.name
    published = timm.get_pretrained_cfg(own_name)
    is_fixed = published is not None and bool(published.fixed_input_size)
    if isinstance(side, int):
        return side, True
    if source is not None and not source.startswith("timm:"):
        info = read_network_info(_find_pinned(source))
        if info is not None:
            return info.size[0], is_fixed
    return (None if published is None else int(published.input_size[1])), is_fixed


def _timm_name(source: str | None) -> str:
    return (source or "").removeprefix("timm:")


def _with_mean_std(settings: config.Network, trained: _TrainedInput, channels: int) -> config.Network:
    if trained.mean is None or len(trained.mean) != channels:
        return settings
    if settings.mean is None:
        return replace(settings, mean=trained.mean, std=trained.std)
    if trained.is_certain and (settings.mean, settings.std) != (trained.mean, trained.std):
        raise InputError(
            f"student.mean and student.std are set, but {settings.weights} has its own: {trained.mean}, {trained.std}",
            "leave them out",
        )
    return settings


@dataclass(frozen=True)
class _InitialWeights:
    """Weights as they were read. source: without digest. file: for messages. classes, network: their names, or None if
    unknown."""

    source: str
    file: str
    tensors: dict[str, Tensor]
    classes: tuple[str, ...] | None
    network: str | None
    trained: _TrainedInput


def _read(settings: config.Network) -> _InitialWeights:
    source = settings.initial_weights
    assert source is not None
    if source.startswith("timm:"):
        name = _timm_name(source)
        return _InitialWeights(source, source, _read_timm(name, settings), None, name, _trained_input(settings, None))
    path = _find_pinned(source)
    tensors, info = read_weights(path)
    classes, network = (None, None) if info is None else (info.classes, info.network)
    trained = _trained_input(settings, path)
    return _InitialWeights(split_digest(source)[0], str(path), tensors, classes, network, trained)


def _read_timm(name: str, settings: config.Network) -> dict[str, Tensor]:
    """timm's weights `name` with their own classes and channels, in the form that the network's arguments need."""
    check_published(name)
    published = timm.get_pretrained_cfg(name)
    assert published is not None
    with torch.random.fork_rng(devices=[]):  # the student's noise does not depend on where its weights come from
        network = create_network(
            name, published.num_classes, published.input_size[0], pretrained=True, arguments=settings.arguments
        )
    return network.state_dict()


def load_initial_weights(network: nn.Module, settings: config.Network, info: NetworkInfo) -> str:
    """Loads the initial weights of `settings` into `network`; returns one line that says what was loaded.

    network: created from `settings` for the classes and channels of `info`. Its classifier is set to zero, as in BiT
    and big_vision, if the weights are for other classes (compared by name if the file has names, else by number) or
    have none: training starts with equal probabilities for all classes. timm's random values of a classifier may give
    large logits for trained features (EfficientNet with few classes: a standard deviation of 20). Weights for one or
    three channels are adapted to another number as timm does. Raises InputError, which names the first tensor that does
    not fit, if they are of another network; nothing is loaded then.
    """
    weights, own = _read(settings), network.state_dict()
    tensors = match_names(network, weights.tensors)
    if weights.classes is None:
        keeps_classifier = classifier_size(network, tensors) == len(info.classes)
    else:
        keeps_classifier = weights.classes == info.classes
    tensors, adapted = _adapt_channels(network, tensors, len(info.mean))
    # As torch does: files of old or other trainers have no counters, which count from 0 then.
    initial = {name: own[name] for name in own if name.endswith(_COUNTER) and name not in tensors}
    if not keeps_classifier:
        initial |= {name: torch.zeros_like(own[name]) for name in classifier_names(network)}
    try:
        load_state(network, tensors | initial, len(info.classes), weights.file)
    except InputError as error:
        raise _misfit(error, weights, settings) from None
    parts = [
        f"{len(own) - len(initial)} of {len(own)} tensors from {weights.source}",
        _describe_classifier(network, keeps_classifier, len(info.classes)),
        *(f"{name} adapted to {len(info.mean)} channel(s)" for name in adapted),
        f"normalization: {_describe_normalization(weights.trained, settings, info)}",
    ]
    if weights.trained.size not in (None, info.size):
        parts.append(f"trained at {_pixels(weights.trained.size)}, the images have {_pixels(info.size)}")
    return f"initial weights: {'; '.join(parts)}"


def _describe_classifier(network: nn.Module, is_kept: bool, classes: int) -> str:
    if is_kept:
        return f"their classifier for {classes} classes"
    return f"new classifier for {classes} classes, which starts from zero ({', '.join(classifier_names(network))})"


def _adapt_channels(
    network: nn.Module, tensors: dict[str, Tensor], channels: int
) -> tuple[dict[str, Tensor], list[str]]:
    """`tensors` with the first convolutions adapted from one or three channels to `channels`, and their names."""
    layers = (getattr(network, "pretrained_cfg", None) or {}).get("first_conv") or ()
    own, adapted = network.state_dict(), dict[str, Tensor]()
    for layer in [layers] if isinstance(layers, str) else layers:
        name = f"{layer}.weight"
        tensor, wanted = tensors.get(name), own.get(name)
        if tensor is None or wanted is None or tensor.ndim != 4 or tensor.shape == wanted.shape:
            continue
        trained_channels = tensor.shape[1] * channels / wanted.shape[1]  # not shape[1], if the stem folds space
        if trained_channels == 1:  # adapt_input_conv of older timm expects RGB: the same response to a gray image
            tensor, trained_channels = tensor.repeat_interleave(_RGB, 1) / _RGB, _RGB
        if trained_channels == _RGB:
            adapted[name] = adapt_input_conv(channels, tensor)
    return tensors | adapted, list(adapted)


def _misfit(error: InputError, weights: _InitialWeights, settings: config.Network) -> InputError:
    problem, hint = error.problem, error.hint
    if weights.network is not None and weights.network != settings.name:
        problem = problem.removesuffix("; is it of another network?")
        hint = (
            f"they are of {weights.network}: set student.name to it, or teacher.network if the teacher starts from them"
        )
    return InputError(f"initial weights for {settings.name}: {problem}", hint)


def _describe_normalization(trained: _TrainedInput, settings: config.Network, info: NetworkInfo) -> str:
    if (info.mean, info.std) == (trained.mean, trained.std):
        return trained.origin
    return "the dataset's" if settings.mean is None else "student.mean and student.std"


def _pixels(size: tuple[int, int] | None) -> str:
    return "any size" if size is None else f"{size[0]}x{size[1]} pixels"
