"""Noise with which residual branches are regularised: one factor forward, another backward, drawn for every image."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def scaled(x: Tensor, forward: Tensor, backward: Tensor) -> Tensor:
    """`forward` times x, whose gradient is `backward` times what comes back; factors [N,1,1,1] for x [N,C,H,W]."""
    return backward * x + (forward - backward) * x.detach()


def per_image(x: Tensor, lowest: float, highest: float) -> Tensor:
    """A number for every image of x [N,...], uniform from `lowest` to `highest`, by torch's generator: [N,1,1,1]."""
    drawn = torch.empty(x.shape[0], 1, 1, 1, device=x.device).uniform_(lowest, highest)
    return drawn.to(x.dtype)


class ShakeDrop(nn.Module):
    """ShakeDrop (Yamada et al., arXiv 1802.02375), every draw its own for each image.

    In training a residual branch is left as it is with probability `keep`, else scaled by a number from [-1,1] forward
    and by one from [0,1] backward. In evaluation it is scaled by its expectation, which is `keep`.
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
    """The mean of two branches (Gastaldi, arXiv 1705.07485); in training weighted by a, 1-a forward, b, 1-b backward.

    a and b are uniform in [0,1], independent, and drawn for every image.
    """

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if not self.training:
            return 0.5 * (left + right)
        return right + scaled(left - right, per_image(left, 0, 1), per_image(left, 0, 1))
