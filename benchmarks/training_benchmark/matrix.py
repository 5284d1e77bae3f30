"""How close a network comes to the device's rate: its operations per step, and the rate of a large matrix product."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from kdaug.training.context import TrainContext, create_student

SIDES = {"cuda": 8192, "cpu": 1024}


class MatrixProduct:
    """The product of two square matrices of random numbers, in the precision of training."""

    def __init__(self, context: TrainContext) -> None:
        self.side = SIDES.get(context.device.type, 1024)
        square = (self.side, self.side)
        self._left, self._right = (torch.randn(square).to(context.device, context.precision) for _ in range(2))
        self._product = torch.empty_like(self._left)

    def __call__(self) -> None:
        torch.mm(self._left, self._right, out=self._product)

    @property
    def operations(self) -> int:
        """Multiplications and additions of one product."""
        return 2 * self.side**3


def training_operations(context: TrainContext) -> int:
    """Multiplications and additions of matrix products and convolutions in one step, forward and backward.

    torch counts them on meta tensors. Element-wise work (batch norm, the optimizer) is not counted.
    """
    network, dataset = create_student(context).to("meta"), context.dataset
    images = torch.empty(context.recipe.optimization.global_batch, dataset.channels, *dataset.size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    return int(counter.get_total_flops())
