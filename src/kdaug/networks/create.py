"""Creates networks by name, checks them, and prepares their input."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdaug.errors import InputError, did_you_mean, one_line
from kdaug.networks.download import read_published_weights

Arguments = Mapping[str, int | float | str | bool]
"""Arguments of a network beside kdaug's own, by name."""
_OWN_ARGUMENTS = {
    "num_classes": "", "in_chans": "", "features_only": "", "drop_rate": "student.dropout",
    "drop_path_rate": "student.drop_path", "device": "run.device", "dtype": "optimization.precision",
}  # fmt: skip
_ARGUMENTS_HINT = "check student.arguments and teacher.arguments"


def check_network_name(name: str) -> None:
    """Raises InputError, which suggests the nearest name, if neither timm nor kdaug has the network `name`."""
    if not timm.is_model(name):
        known = timm.list_models()
        family = [other for other in known if other.startswith(name.split("_")[0])]
        raise InputError(f"there is no network {name!r} in timm or kdaug{did_you_mean(name, family or known)}")


def check_arguments(arguments: Arguments) -> None:
    """Raises InputError for an argument that kdaug sets itself, or that would make timm read a file."""
    for argument in arguments:
        if argument in _OWN_ARGUMENTS:
            setting = _OWN_ARGUMENTS[argument]
            raise InputError(f"the network argument {argument} is set by kdaug", f"use {setting}" if setting else "")
        if argument in inspect.signature(timm.create_model).parameters or argument.startswith("pretrained"):
            raise InputError(f"{argument} is not an argument of a network, but of timm's loading", "leave it out")


def create_network(
    name: str,
    classes: int,
    channels: int,
    pretrained: bool = False,
    drop_path: float = 0.0,
    dropout: float = 0.0,
    arguments: Arguments = MappingProxyType({}),
) -> nn.Module:
    """The network `name` of timm's registry (kdaug's included) with `classes` outputs and `channels` input channels.

    drop_path, dropout: timm's drop_path_rate and drop_rate, passed on unless 0. arguments: further arguments of the
    network, for timm.create_model (img_size of a vision transformer, say). pretrained: with timm's published weights,
    adapted by timm to other classes and channels. Raises InputError for an unknown name, if published weights are not
    available, or if the network does not support such a rate or argument.
    """
    check_network_name(name)
    check_arguments(arguments)
    rates = {"drop_path_rate": drop_path, "drop_rate": dropout}
    options: dict[str, Any] = {rate: value for rate, value in rates.items() if value} | dict(arguments)
    tensors = read_published_weights(name) if pretrained else None
    if tensors is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": tensors}
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels, **options)
    except Exception as error:
        # A wrong value of an argument may raise anything, deep inside the network.
        if not arguments and not isinstance(error, RuntimeError | TypeError | ValueError | OSError):
            raise
        raise _creation_error(name, arguments, error) from None
    if tensors is not None:  # timm keeps them in the network, with which they would be copied
        vars(network)["pretrained_cfg"].pop("state_dict", None)
    return network


def _creation_error(name: str, arguments: Arguments, error: Exception) -> InputError:
    """The InputError for `error`, which timm has raised when it created the network `name`."""
    for setting, rate in (("student.drop_path", "drop_path_rate"), ("student.dropout", "drop_rate")):
        if isinstance(error, TypeError) and f"'{rate}'" in str(error):
            return InputError(f"network {name} does not support {setting}", "leave it at 0")
    for argument in arguments:
        if isinstance(error, TypeError) and f"'{argument}'" in str(error):
            return InputError(f"network {name} has no argument {argument}", _ARGUMENTS_HINT)
    if not arguments:
        return InputError(f"network {name} cannot be created: {one_line(error)}")
    given = " ".join(f"{argument}={value}" for argument, value in arguments.items())
    return InputError(f"network {name} cannot be created with arguments {given}: {one_line(error)}", _ARGUMENTS_HINT)


def set_batch_norm_momentum(network: nn.Module, name: str, momentum: float) -> None:
    """Sets the momentum of all batch norms of the network called `name`. Raises InputError if it has none."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise InputError(f"network {name} has no batch norms", "leave student.batch_norm_momentum out")
    for norm in norms:
        norm.momentum = momentum


def check_forward(network: nn.Module, name: str, batch: int, channels: int, size: tuple[int, int]) -> None:
    """Runs a forward pass on `batch` black images of `size` (height, width), in the network's current mode.

    Raises InputError if the network called `name` fails on them, or returns anything but logits [N,C].
    """
    try:
        with torch.no_grad():
            logits = network(torch.zeros(batch, channels, *size))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        images = f"{batch} image(s) of {size[0]}x{size[1]} pixels"
        fixed_size = f"build it for this size with student.arguments img_size={size[0]}, if it takes that argument"
        hint = fixed_size if isinstance(error, AssertionError) else ""
        raise InputError(f"network {name} cannot take {images}: {one_line(error)}", hint) from None
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError(f"network {name} does not return one row of logits per image")


def check_published(name: str) -> None:
    """Raises InputError if timm does not have the network `name`, or no published weights for it."""
    if not timm.is_model(name):
        raise InputError(f"there is no network {name!r} in timm{did_you_mean(name, timm.list_models())}")
    if not timm.is_model_pretrained(name):
        raise InputError(f"timm has no published weights for {name}", "use a run or a weight file")


def published_mean_std(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std (per channel, 0..1) that timm's weights `name` were trained with; None if there are none."""
    published = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    return None if published is None else (tuple(published.mean), tuple(published.std))


def published_image_size(name: str) -> int | None:
    """Image side in pixels at which timm evaluates its weights `name`; None if there are none."""
    published = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    return None if published is None else int((published.test_input_size or published.input_size)[1])


def count_parameters(network: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@dataclass(frozen=True)
class InputFormat:
    """The input that a network was trained on: mean and std per channel in 0..1; (height, width), or None for any."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None

    def normalize(self, images: Tensor) -> Tensor:
        """Converts uint8 [N,H,W,C] to normalized float32 [N,C,H',W'] in channels_last memory format.

        Resizes (bilinear, antialiased) if the size differs. Raises InputError if the number of channels differs.
        """
        if images.shape[3] != len(self.mean):
            raise InputError(f"the network takes {len(self.mean)} channel(s), but the images have {images.shape[3]}")
        mean, scale = _normalization(self.mean, self.std, images.device)
        prepared = ((images.float() - mean) * scale).permute(0, 3, 1, 2)
        if self.size is not None and prepared.shape[2:] != self.size:
            prepared = nn.functional.interpolate(prepared, self.size, mode="bilinear", antialias=True)
        return prepared


@cache
def _normalization(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """255 mean and 1 / (255 std), [C] each. Cached, because a copy to a GPU waits for all its queued work."""
    # A teacher may call this first, in inference mode; then the student's gradients flow through the same tensors.
    with torch.inference_mode(False):
        return torch.tensor(mean, device=device) * 255, 1 / (torch.tensor(std, device=device) * 255)
