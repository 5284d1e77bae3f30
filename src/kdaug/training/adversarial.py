"""AdvProp (Xie et al., arXiv 1911.09665): training on adversarial images too, with separate batch norms for them.

The attack is targeted projected gradient descent (Madry et al., arXiv 1706.06083) to a random wrong class. It runs
through the auxiliary batch norms with their running statistics, as the Fast AdvProp paper describes AdvProp.
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
    """Adds an auxiliary batch norm to each batch norm of `network`; in training, the second half of a batch uses those.

    In evaluation only the main ones are used. Raises InputError if the network called `name` has no batch norms.
    """
    split: nn.Module = convert_splitbn_model(network, num_splits=2)  # type: ignore[no-untyped-call]
    if not any(isinstance(module, SplitBatchNorm2d) for module in split.modules()):
        raise InputError(
            f"network {name} has no batch norms, which AdvProp needs",
            "set adversary.steps to 0 or choose another network",
        )
    return split


def drop_auxiliary_norms(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights (by name) without those of the auxiliary norms, which evaluation does not use."""
    return {name: value for name, value in weights.items() if _AUXILIARY not in name}


def pgd_attack(
    network: nn.Module, images: Tensor, labels: Tensor, settings: config.Adversary, input_format: InputFormat
) -> Tensor:
    """Adversarial versions of `images`, which `network` is to classify as a wrong class.

    images: float [N,C,H,W], normalized by `input_format`; the result has the same shape and stays within
    settings.epsilon of them and within 0..255. labels: int64 [N]. The start (anywhere within epsilon) and the target
    classes are drawn from torch's generator. The network is not changed, and no gradient flows back.
    """
    lowest, highest, unit = _pixel_range(input_format, images.device, images.dtype)
    epsilon = settings.epsilon * unit
    lower, upper = (images - epsilon).clamp(lowest, highest), (images + epsilon).clamp(lowest, highest)
    attacked = lower + torch.rand_like(images) * (upper - lower)
    weights, was_training, targets = _weights_with_auxiliary_norms(network), network.training, None
    network.eval()
    for _ in range(settings.steps):
        attacked.requires_grad_()
        logits = functional_call(network, weights, (attacked,)).float()
        if targets is None:  # of each image one of the other classes, all with the same probability
            targets = (labels + torch.randint_like(labels, 1, logits.shape[1])) % logits.shape[1]
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, targets, reduction="sum"), attacked)
        attacked = (attacked.detach() - settings.step_size * unit * gradient.sign()).clamp(lower, upper)
    network.train(was_training)
    return attacked


@cache
def _pixel_range(form: InputFormat, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel values 0 and 255 and a difference of 1 as network input, [C,1,1] each. Cached, to not wait for a GPU."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device)[:, None, None] for values in (form.mean, form.std))
    return -mean / std, (1 - mean) / std, 1 / (255 * std)


def _weights_with_auxiliary_norms(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics of the auxiliary norms under the names of the main norms that they replace."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name.replace(_AUXILIARY, "."): value for name, value in tensors.items() if _AUXILIARY in name}
