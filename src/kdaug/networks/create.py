"""Networks by name, and what a network needs to know about its input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdaug.errors import InputError, nearest


def check_network_name(name: str) -> None:
    """InputError, with the nearest name, if neither timm nor kdaug has the network `name`."""
    if not timm.is_model(name):
        known = timm.list_models()
        family = [other for other in known if other.startswith(name.split("_")[0])]
        raise InputError(f"there is no network {name!r} in timm or kdaug{nearest(name, family or known)}")


def create_network(
    name: str, classes: int, channels: int, pretrained: bool = False, drop_path: float = 0.0, dropout: float = 0.0
) -> nn.Module:
    """The network `name` of timm's registry (ours included) with `classes` outputs for `channels` input channels.

    drop_path, dropout: timm's drop_path_rate and drop_rate, handed on unless 0. Raises InputError for a name that there
    is not, one whose published weights cannot be had, or a network that knows no such rate.
    """
    check_network_name(name)
    rates = {"drop_path_rate": drop_path, "drop_rate": dropout}
    asked: dict[str, Any] = {rate: value for rate, value in rates.items() if value}
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=classes, in_chans=channels, **asked)
    except (RuntimeError, TypeError, ValueError, OSError) as error:
        for setting, rate in (("student.drop_path", "drop_path_rate"), ("student.dropout", "drop_rate")):
            if isinstance(error, TypeError) and f"'{rate}'" in str(error):
                raise InputError(f"network {name} knows no {setting}; leave it at 0") from None
        raise InputError(f"network {name} cannot be made: {' '.join(str(error).split())}") from None


def set_batch_norm_momentum(network: nn.Module, name: str, momentum: float) -> None:
    """Lets each batch count for `momentum` in the running statistics; InputError if network `name` has none."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise InputError(f"network {name} has no batch norms; leave student.batch_norm_momentum out")
    for norm in norms:
        norm.momentum = momentum


def check_forward(network: nn.Module, name: str, batch: int, channels: int, size: tuple[int, int]) -> None:
    """Sends `batch` black images of `size` (height, width) through `network` as it is; the outcome is thrown away.

    Raises InputError if the network called `name` cannot take them, or answers with anything but logits [N,C].
    """
    try:
        with torch.no_grad():
            logits = network(torch.zeros(batch, channels, *size))
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"network {name} cannot take {batch} image(s) of {size[0]}x{size[1]} pixels: {reason}"
        ) from None
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        raise InputError(f"network {name} does not answer with one row of logits per image; choose another")


def check_published(name: str) -> None:
    """InputError if timm does not have the network `name`, or publishes no weights for it."""
    if not timm.is_model(name):
        raise InputError(f"there is no network {name!r} in timm{nearest(name, timm.list_models())}")
    if not timm.is_model_pretrained(name):
        raise InputError(f"timm has no published weights for {name}; give a run, or for a teacher a weight file")


def published_mean_std(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and std, per channel in 0..1, of the images that timm's published weights of `name` were trained on.

    None if there are no published weights.
    """
    published = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    return None if published is None else (tuple(published.mean), tuple(published.std))


def published_image_size(name: str) -> int | None:
    """Side in pixels of the images that timm's published weights of `name` are evaluated on; None if there are none."""
    published = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    return None if published is None else int((published.test_input_size or published.input_size)[1])


def count_parameters(network: nn.Module) -> int:
    """How many trainable numbers the network has."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@dataclass(frozen=True)
class InputFormat:
    """The input a network was trained for: mean and std per channel in 0..1, and (height, width), None for any."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 [N,H,W,C] to float32 [N,C,H',W'], normalised, channels last in memory.

        Resized (antialiased bilinear) if the size differs. Raises InputError if the channels differ.
        """
        if images.shape[3] != len(self.mean):
            raise InputError(f"the network takes {len(self.mean)} channel(s), but the images have {images.shape[3]}")
        mean, scale = _normalisation(self.mean, self.std, images.device)
        prepared = ((images.float() - mean) * scale).permute(0, 3, 1, 2)
        if self.size is not None and prepared.shape[2:] != self.size:
            prepared = nn.functional.interpolate(prepared, self.size, mode="bilinear", antialias=True)
        return prepared


@cache
def _normalisation(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """255 mean and 1 / (255 std), [C] each. Made once: to copy them to a GPU is to wait for all it has to do."""
    with torch.inference_mode(
        False
    ):  # a teacher may be the first to ask, and its student's gradients flow through them
        return torch.tensor(mean, device=device) * 255, 1 / (torch.tensor(std, device=device) * 255)
