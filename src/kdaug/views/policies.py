"""Policies: they draw which ops an image gets, and only draw. A policy's plan is a pure function of its arguments.

`create_policy` makes one from a specification string; `of_recipe` puts the recipe's crop, flip and cutout around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from kdaug.config import Views
from kdaug.errors import InputError, nearest
from kdaug.philox import Stream, below, uniform, words
from kdaug.views.ops import CODES
from kdaug.views.plan import Color, Size, ViewPlan, blank, chain
from kdaug.views.spaces import WORDS_PER_OP, space_of

CIFAR_MEAN: Color = (125, 122, 113)
"""Fill of the AutoAugment release, used where a space fills with the data's mean and none is given."""


class Policy(Protocol):
    """Anything that plans."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        """The plan for samples `indices` (int64 [N], positions in the training set) of `size` (height, width)."""
        ...


@dataclass(frozen=True)
class NoPolicy:
    """Leaves every image as it is."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        return blank(np.size(indices), 0, size)


@dataclass(frozen=True)
class RandAugment:
    """`num_ops` ops drawn uniformly with replacement, all at one magnitude (Cubuk et al., arXiv 1909.13719).

    What the magnitude does is up to the space; `mean` is the fill (0..255) where the space fills with the data's mean.
    """

    num_ops: int
    magnitude: float
    space: str
    mean: Color = CIFAR_MEAN

    def __post_init__(self) -> None:
        limit = space_of(self.space).max_level
        if self.num_ops < 1:
            raise InputError(f"RandAugment: the number of ops is {self.num_ops}, but must be at least 1")
        if not 0 <= self.magnitude < np.inf or (limit is not None and self.magnitude > limit):
            allowed = f"from 0 to {limit:g}" if limit is not None else "at least 0"
            raise InputError(f"RandAugment: the magnitude is {self.magnitude:g}, but must be {allowed} in {self.space}")

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        space = space_of(self.space)
        count = np.size(indices)
        drawn = words(seed, epoch, indices, Stream.POLICY, self.num_ops * WORDS_PER_OP)
        plan = blank(count, self.num_ops, size, self.mean if space.fill == "mean" else space.fill, space.resample)
        op, argument = space.draw(drawn.reshape(count, self.num_ops, WORDS_PER_OP), self.magnitude, size)
        return replace(plan, op=op, argument=argument)


@dataclass(frozen=True)
class PadCrop:
    """Pads `pad` pixels of colour `fill` on each side, then crops back to size at a uniform offset."""

    pad: int
    fill: Color

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        offset = below(words(seed, epoch, indices, Stream.CROP, 2), 2 * self.pad + 1) - self.pad
        plan = blank(len(offset), 1, size, self.fill)
        plan.op[:] = CODES["crop"]
        plan.argument[:, 0, :2] = offset
        plan.argument[:, 0, 2:] = size[1], size[0]
        return plan


@dataclass(frozen=True)
class Flip:
    """Mirrors left-right with probability one half."""

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        heads = uniform(words(seed, epoch, indices, Stream.FLIP, 1)) < 0.5
        plan = blank(len(heads), 1, size)
        plan.op[heads] = CODES["flip"]
        return plan


@dataclass(frozen=True)
class Cutout:
    """Erases a square of `side` pixels centred anywhere in the image, cut off at its border (arXiv 1708.04552)."""

    side: int
    fill: Color

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        height, width = size
        centre = below(words(seed, epoch, indices, Stream.CUTOUT, 2), (width, height))
        plan = blank(len(centre), 1, size, self.fill)
        plan.op[:] = CODES["cutout"]
        plan.argument[:, 0, :2] = centre - self.side // 2
        plan.argument[:, 0, 2] = self.side
        return plan


@dataclass(frozen=True)
class Sequential:
    """Several policies, one after the other. Each kind may stand once, since a kind draws from one stream."""

    parts: Sequence[Policy]

    def __post_init__(self) -> None:
        kinds = [type(part).__name__ for part in _singly(self.parts)]
        for kind in kinds:
            if kinds.count(kind) > 1:
                raise InputError(f"{kind} stands twice in a sequence; both would draw the same numbers")

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> ViewPlan:
        plans: list[ViewPlan] = [blank(np.size(indices), 0, size)]
        for part in self.parts:
            plans.append(part.plan(seed, epoch, indices, plans[-1].output_size))
        return chain(plans)


def _singly(parts: Sequence[Policy]) -> list[Policy]:
    """The parts, those of sequences among them included."""
    return [single for part in parts for single in (_singly(part.parts) if isinstance(part, Sequential) else [part])]


def create_policy(spec_or_name: str, **options: Any) -> Policy:
    """The policy that a specification names.

    `randaugment-n2-m9@tf-efficientnet`: 2 ops at magnitude 9 in that space; `none`. Options replace parts of the
    specification: num_ops, magnitude, space, and mean (fill 0..255 per channel in spaces that fill with the data's
    mean). Raises InputError for a specification or option that there is not, or that lacks a part.
    """
    name, settings = _parse(spec_or_name)
    if name == "none":
        if set(options) - {"mean"}:
            raise InputError(f"policy none has no {sorted(set(options) - {'mean'})[0]}")
        return NoPolicy()
    known = ["num_ops", "magnitude", "space", "mean"]
    for option in options:
        if option not in known:
            raise InputError(f"policy randaugment has no option {option}{nearest(option, known)}")
    settings.update({key: value for key, value in options.items() if value is not None})
    for part in ("num_ops", "magnitude", "space"):
        if part not in settings:
            raise InputError(f"policy {spec_or_name} lacks its {part}; write randaugment-n2-m9@tf-efficientnet")
    return RandAugment(**settings)


def spec_with_magnitude(spec: str, magnitude: float) -> str:
    """The specification with another magnitude; InputError if the policy has none."""
    name, _ = _parse(spec)
    if name != "randaugment":
        raise InputError(f"views.magnitude is {magnitude:g}, but policy {spec} has no magnitude")
    policy = create_policy(spec, magnitude=magnitude)
    assert isinstance(policy, RandAugment)
    return f"randaugment-n{policy.num_ops}-m{np.format_float_positional(policy.magnitude, trim='-')}@{policy.space}"


def of_recipe(views: Views, mean: Color, cropped_at_decoding: bool) -> Policy:
    """The whole view of a recipe: policy, crop, flip and cutout in the field's order.

    CIFAR style (arXiv 1805.09501's release): policy, pad-crop, flip, cutout. Where images are cropped while they are
    decoded, ImageNet style (tensorflow/tpu): crop, flip, policy, cutout. `mean` fills what padding and cutout expose.
    """
    policy = create_policy(views.policy, mean=mean)
    flip: list[Policy] = [Flip()] if views.flip else []
    cutout: list[Policy] = [Cutout(views.cutout, mean)] if views.cutout else []
    if views.crop == "pad":
        return Sequential([policy, PadCrop(views.pad, mean), *flip, *cutout])
    if views.crop == "random-resized" and not cropped_at_decoding:
        raise InputError(
            "views.crop random-resized needs data.name folder; sets held in memory take views.crop pad or none"
        )
    return Sequential([*flip, policy, *cutout])


_RANDAUGMENT = re.compile(r"randaugment(?:-n(?P<n>\d+))?(?:-m(?P<m>\d+(?:\.\d+)?))?(?:@(?P<space>[\w-]+))?")


def _parse(spec: str) -> tuple[str, dict[str, Any]]:
    """The policy's name and the settings that its specification states."""
    if spec == "none":
        return "none", {}
    match = _RANDAUGMENT.fullmatch(spec)
    if not match:
        known = ["none", "randaugment-n2-m9@tf-efficientnet", "randaugment-n2-m5@paper-geometric"]
        raise InputError(f"there is no policy {spec!r}{nearest(spec, known) or '; write one like ' + ', '.join(known)}")
    settings: dict[str, Any] = {}
    if match["n"]:
        settings["num_ops"] = int(match["n"])
    if match["m"]:
        settings["magnitude"] = float(match["m"])
    if match["space"]:
        settings["space"] = match["space"]
    return "randaugment", settings
