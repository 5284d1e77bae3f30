"""What a policy is, and several of them one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from kdaug.errors import InputError
from kdaug.rng.philox import Stream
from kdaug.views.plan import Size, ViewPlan, blank, chain


class Policy(Protocol):
    """Anything that plans."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        """The plan for samples `indices` (int64 [N], positions in the training set) of `size` (height, width)."""
        ...


@dataclass(frozen=True)
class Sequential:
    """Several policies, one after the other. Each stream of random words may serve one of them only."""

    parts: Sequence[Policy]

    def __post_init__(self) -> None:
        drawing: dict[Stream | str, str] = {}
        for part in flatten(self.parts):
            kind = type(part).__name__
            stream = getattr(part, "stream", kind)
            if stream in drawing:
                other = drawing[stream]
                trouble = f"{kind} stands twice" if other == kind else f"{other} and {kind} stand together"
                raise InputError(f"{trouble} in a sequence; both would draw the same numbers")
            drawing[stream] = kind

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        plans: list[ViewPlan] = [blank(np.size(indices), 0, size)]
        for part in self.parts:
            plans.append(part.plan(seed, epoch, indices, plans[-1].output_size))
        return chain(plans)


def flatten(parts: Sequence[Policy]) -> list[Policy]:
    """The parts, those of sequences among them included."""
    return [single for part in parts for single in (flatten(part.parts) if isinstance(part, Sequential) else [part])]
