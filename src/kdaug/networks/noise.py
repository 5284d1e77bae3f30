"""Random scaling of residual branches: one factor in the forward pass, another in the backward pass, per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scaled(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """`forward` * x; its gradient is multiplied by `backward` instead. Factors [N,1,1,1] for x [N,C,H,W]."""
    return backward * x + (forward - backward) * x.detach()


def per_image(x: Tensor, lowest: float, highest: float) -> Tensor:
    """One random number per image of x [N,...], uniform in [lowest, highest], from torch's generator: [N,1,1,1]."""
    # new_empty and not torch.empty, which torch.fx cannot trace with the shape and device of a traced tensor
    drawn = x.new_empty((x.shape[0], 1, 1, 1), dtype=torch.float32).uniform_(lowest, highest)
    return drawn.to(x.dtype)


class ShakeDrop(nn.Module):
    """ShakeDrop (Yamada et al., arXiv 1802.02375), with independent draws for each image.

    In training, a residual branch is unchanged with probability `keep`; else it is scaled by a uniform number in [-1,1]
    forward and by another in [0,1] backward. In evaluation it is scaled by the expectation, `keep`.
    """

    def __init__(self, keep: float) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.keep * x
        kept = per_image(x, 0, 1) < self.keep
        one = torch.ones_like(kept, dtype=x.dtype)
        return scaled(x, torch.where(kept, one, per_image(x, -1, 1)), torch.where(kept, one, per_image(x, 0, 1)))

    def extra_repr(self) -> str:
        return f"keep={self.keep:.4f}"


class ShakeShake(nn.Module):
    """Shake-Shake (Gastaldi, arXiv 1705.07485): two branches weighted by a, 1-a forward and b, 1-b backward.

    In training, a and b are uniform in [0,1], independent, and drawn for each image. In evaluation, both are 1/2.
    """

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if not self.training:
            return 0.5 * (left + right)
        return right + scaled(left - right, per_image(left, 0, 1), per_image(left, 0, 1))
