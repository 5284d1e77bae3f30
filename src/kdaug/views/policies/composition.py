"""The interface of policies, and sequences of policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from kdaug.errors import InputError
from kdaug.rng import Stream
from kdaug.views.plan import Size, ViewPlan, concat_plans, empty_plan


class Policy(Protocol):
    """Draws plans. A plan is a pure function of the arguments of `plan`."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        """The plan for the images with sample ids `indices` (int64 [N]); `size` is their (height, width).

        A sample id is the row of an image in the dataset, or for shards a hash of its key (`Images.sample_ids`).
        """
        ...


@dataclass(frozen=True)
class Sequential:
    """Applies several policies in order.

    Raises InputError if two of them use the same stream of random words, because they would draw the same numbers.
    """

    parts: Sequence[Policy]

    def __post_init__(self) -> None:
        users: dict[Stream | str, str] = {}
        for part in flatten_policies(self.parts):
            kind = type(part).__name__
            stream = getattr(part, "stream", kind)
            if stream in users:
                raise InputError(
                    f"a sequence has {users[stream]} and {kind}, which would draw the same random numbers",
                    "use one of them",
                )
            users[stream] = kind

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        plans: list[ViewPlan] = [empty_plan(np.size(indices), 0, size)]
        for part in self.parts:
            plans.append(part.plan(seed, epoch, indices, plans[-1].output_size))
        return concat_plans(plans)


def flatten_policies(parts: Sequence[Policy]) -> list[Policy]:
    """The policies with each Sequential replaced by its parts, at any depth."""
    single = [flatten_policies(part.parts) if isinstance(part, Sequential) else [part] for part in parts]
    return [policy for policies in single for policy in policies]
