"""What a policy really does, in words: for each op of its space the argument at some levels; its sub-policies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from kdaug.views.plan import Size
from kdaug.views.policies.composition import Policy, flatten
from kdaug.views.policies.pba import PopulationBasedAugmentation, schedule_of
from kdaug.views.policies.randaugment import RandAugment
from kdaug.views.policies.sub_policies import SubPolicies
from kdaug.views.policies.trivialaugment import TrivialAugment
from kdaug.views.space import Range, Space, cutout_side
from kdaug.views.spaces import SPACES, get_space, get_sub_policy_space

SPACE_DESCRIPTIONS = {
    "paper-geometric": "arXiv 2003.11342, Section 4.1: five ops up to a strength, M 0..10",
    "tf-efficientnet": "RandAugment of the TPU EfficientNet code, M unclipped",
    "tf-efficientnet-autoaugment": "AutoAugment of the same code: longer shifts, larger cutouts",
    "autoaugment-cifar": "AutoAugment's released CIFAR code, levels 0..10",
    "pba": "PBA's code, levels 0..10",
    "fast-autoaugment": "Fast AutoAugment's code, levels 0..1, two-sided",
    "timm": "timm's RandAugment, M 0..10, each op with probability 1/2",
    "torchvision": "torchvision's RandAugment, M 0..30",
    "torchvision-autoaugment": "torchvision's AutoAugment, levels 0..9",
    "torchvision-wide": "torchvision's TrivialAugmentWide, levels 0..30",
}
assert SPACE_DESCRIPTIONS.keys() == SPACES.keys()


@dataclass(frozen=True)
class PolicyDescription:
    """A policy's ops and levels: rows of `table` are ops, columns are levels.

    sub_policies: each in words; of a schedule, each segment. kind: which of the two.
    """

    space: Space
    ops: tuple[str, ...]
    levels: tuple[float, ...]
    table: tuple[tuple[str, ...], ...]
    sub_policies: tuple[str, ...] = ()
    kind: Literal["sub-policies", "segments"] = "sub-policies"


def describe(policy: Policy, size: Size) -> list[PolicyDescription]:
    """The parts of `policy` that read levels in a space, described for images of `size` (height, width)."""
    kinds = (RandAugment, TrivialAugment, SubPolicies, PopulationBasedAugmentation)
    return [_describe(part, size) for part in flatten([policy]) if isinstance(part, kinds)]


def describe_space(name: str, size: Size) -> PolicyDescription:
    """All ops of the space `name` at a few levels, for images of `size` (height, width)."""
    space = get_space(name)
    return _described(space, tuple(space.ops), default_levels(space), size)


def _describe(policy: Any, size: Size) -> PolicyDescription:
    match policy:
        case RandAugment():
            space = get_space(policy.space)
            return _described(space, policy.ops or tuple(space.ops), (policy.magnitude,), size)
        case SubPolicies():
            space = get_sub_policy_space(policy.space)
            lines = tuple(", then ".join(_step(*step) for step in steps) for steps in policy.sub_policies)
            return replace(_described(space, tuple(space.ops), default_levels(space), size), sub_policies=lines)
        case PopulationBasedAugmentation():
            space = get_sub_policy_space(policy.space)
            described = _described(space, tuple(space.ops), default_levels(space), size)
            return replace(described, sub_policies=_segments(policy), kind="segments")
        case _:
            return describe_space(policy.space, size)


def _described(space: Space, ops: tuple[str, ...], levels: tuple[float, ...], size: Size) -> PolicyDescription:
    table = tuple(tuple(format_argument(space, op, level, size) for level in levels) for op in ops)
    return PolicyDescription(space, ops, levels, table)


def default_levels(space: Space) -> tuple[float, ...]:
    """A few levels of a space, from the weakest to the strongest."""
    if space.limit is None:
        return 0, 3, 5, 7, 10, 15, 28
    shares = (0, 0.3, 0.5, 0.7, 0.9, 1)
    return tuple(float(round(space.limit * share) if space.whole_levels else space.limit * share) for share in shares)


def format_argument(space: Space, op: str, level: float, size: Size) -> str:
    """What `op` does at `level` to images of `size`: "± 27°", "up to ± 67 px", "3 bits", "× 1.72", ..."""
    row = space.ops.get(op)
    if row is None:
        return "nothing" if op == "none" else "applied"
    position = np.array([list(space.ops).index(op)])
    argument = space.arguments(position, np.array([level], float), np.ones(1), size)[0]
    strength = float(argument[2] if op == "cutout" else argument[0])
    words = _in_words(row, strength, size, level * 9 if row.unit == "shear degrees" else 0)
    return f"up to {words}" if space.strength == "at most" else words


def _in_words(row: Range, value: float, size: Size, degrees: float) -> str:
    sign = "± " if row.signed else ""
    match row.unit:
        case "degrees":
            return f"{sign}{_short(abs(value))}°"
        case "shear":
            return f"{sign}{_short(abs(value))}"
        case "shear degrees":
            return f"{sign}{_short(degrees)}°"
        case "pixels" | "sides" if row.signed:
            return f"{sign}{_short(abs(value))} px"
        case "threshold":
            return "unchanged" if value >= 256 else f"inverts ≥ {_short(value)}"
        case "bits":
            return "black" if value < 1 else "unchanged" if value >= 8 else f"{_short(value)} bit{'s' * (value > 1)}"
        case "factor":
            return f"× {_short(value)}"
        case "1 ± factor":
            return f"× 1 ± {_short(value - 1)}"
        case "addition":
            return f"+ {_short(value)} below 128"
        case _:
            return f"{_short(float(cutout_side(row, np.array(value), size)))} px"


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _step(op: str, probability: float, level: float) -> str:
    return f"{op} {level:.3g} ({probability:.0%})"


def _segments(policy: PopulationBasedAugmentation) -> tuple[str, ...]:
    """Each segment of the schedule that `policy` comes to, with its epochs and the entries that can happen."""
    ops, schedule = schedule_of(policy.name)
    of_epoch = [policy.segment_of(epoch) for epoch in range(policy.epochs)]
    lines = []
    for segment in sorted(set(of_epoch)):
        first, last = of_epoch.index(segment), of_epoch.index(segment) + of_epoch.count(segment) - 1
        entries = zip(ops, schedule["segments"][segment][1], strict=True)
        steps = ", ".join(_step(op, tenths / 10, level) for op, (tenths, level) in entries if tenths)
        lines.append(f"epoch {first}{f' to {last}' * (last > first)}: {steps or 'nothing'}")
    return tuple(lines)
