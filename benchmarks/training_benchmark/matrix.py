"""How near a network comes to what the device can do: its operations, beside one large matrix product's."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from kdaug.training.context import TrainContext, create_student

SIDES = {"cuda": 8192, "cpu": 1024}


class MatrixProduct:
    """The product of two square matrices of random numbers, in the number format that the network is trained in."""

    def __init__(self, context: TrainContext) -> None:
        self.side = SIDES.get(context.device.type, 1024)
        square = (self.side, self.side)
        self._left, self._right = (torch.randn(square).to(context.device, context.precision) for _ in range(2))
        self._product = torch.empty_like(self._left)

    def __call__(self) -> None:
        torch.mm(self._left, self._right, out=self._product)

    @property
    def operations(self) -> int:
        """Multiplications and additions in one product."""
        return 2 * self.side**3


def training_operations(context: TrainContext) -> int:
    """Multiplications and additions of matrix products and convolutions in one step, forward and backward.

    Counted by torch without computing anything; what is done number by number (batch-norm, the optimiser) is left out.
    """
    network, dataset = create_student(context).to("meta"), context.dataset
    images = torch.empty(context.recipe.optimization.global_batch, dataset.channels, *dataset.size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())
