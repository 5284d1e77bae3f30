"""Counts the floating-point operations of a network."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from kdaug.networks.create import create_network


@cache
def count_forward_operations(name: str, classes: int, channels: int, size: tuple[int, int]) -> int:
    """Floating-point operations of one forward pass on one image of `size` (height, width).

    Those of convolutions and matrix products, as torch's FlopCounterMode counts them: multiply and add are two.
    """
    with torch.device("meta"):
        network = create_network(name, classes, channels).eval()
        image = torch.empty(1, channels, *size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return int(counter.get_total_flops())
