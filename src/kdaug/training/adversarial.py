"""AdvProp (Xie et al., arXiv 1911.09665): images moved to mislead the student, learned with batch norms of their own.

The attack is projected gradient descent (Madry et al., arXiv 1706.06083) towards a class drawn at random among the
wrong ones, through the auxiliary norms with their running statistics, as the Fast AdvProp paper says of AdvProp.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import torch
from timm.layers import SplitBatchNorm2d, convert_splitbn_model
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from kdaug import config
from kdaug.errors import InputError
from kdaug.networks import InputFormat

_AUXILIARY = ".aux_bn.0."


def add_auxiliary_norms(network: nn.Module, name: str) -> nn.Module:
    """`network` with a second batch norm beside each: in training, the second half of a batch goes through that.

    In evaluation all goes through the main ones. Raises InputError if the network called `name` has no batch norms.
    """
    split: nn.Module = convert_splitbn_model(network, num_splits=2)  # type: ignore[no-untyped-call]
    if not any(isinstance(module, SplitBatchNorm2d) for module in split.modules()):
        raise InputError(
            f"network {name} has no batch norms, of which AdvProp keeps two kinds; leave adversary.steps 0"
        )
    return split


def drop_auxiliary_norms(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is left of a network's weights (by name) for those who only evaluate it."""
    return {name: value for name, value in weights.items() if _AUXILIARY not in name}


def pgd_attack(
    network: nn.Module, images: Tensor, labels: Tensor, settings: config.Adversary, input_format: InputFormat
) -> Tensor:
    """Each of `images` moved, within settings.epsilon and 0..255, to look to `network` like a class that it is not.

    images: float [N,C,H,W], normalised as `input_format` says; labels int64 [N]. The start, anywhere within epsilon,
    and the wrong classes are drawn by torch's generator. Nothing of the network changes, and no gradient flows back.
    """
    lowest, highest, unit = _range_of(input_format, images.device, images.dtype)
    reach = settings.epsilon * unit
    nearest, furthest = (images - reach).clamp(lowest, highest), (images + reach).clamp(lowest, highest)
    moved = nearest + torch.rand_like(images) * (furthest - nearest)
    weights, was_training, targets = _auxiliary_in_place_of_main(network), network.training, None
    network.eval()
    for _ in range(settings.steps):
        moved.requires_grad_()
        logits = functional_call(network, weights, (moved,)).float()
        targets = _wrong(labels, logits.shape[1]) if targets is None else targets
        (slope,) = torch.autograd.grad(functional.cross_entropy(logits, targets, reduction="sum"), moved)
        moved = (moved.detach() - settings.step_size * unit * slope.sign()).clamp(nearest, furthest)
    network.train(was_training)
    return moved


@cache
def _range_of(form: InputFormat, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What pixels 0 and 255 are as input, and how much one more is: [C,1,1] each. Made once, as a GPU is to go on."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device)[:, None, None] for values in (form.mean, form.std))
    return -mean / std, (1 - mean) / std, 1 / (255 * std)


def _wrong(labels: Tensor, classes: int) -> Tensor:
    """For each of `labels` another of the classes, all of them equally likely."""
    return (labels + torch.randint_like(labels, 1, classes)) % classes


def _auxiliary_in_place_of_main(network: nn.Module) -> dict[str, Tensor]:
    """The auxiliary norms' parameters and statistics, by the names of the main ones' that they stand beside."""
    everything = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name.replace(_AUXILIARY, "."): value for name, value in everything.items() if _AUXILIARY in name}
