"""Readable descriptions of policies: the argument of each op at some levels, and the sub-policies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from kdaug.views.plan import Size
from kdaug.views.policies.augmix import MAX_DRAWN_DEPTH, AugMix
from kdaug.views.policies.composition import Policy, flatten_policies
from kdaug.views.policies.pba import PopulationBasedAugmentation, load_schedule
from kdaug.views.policies.randaugment import RandAugment
from kdaug.views.policies.sub_policies import SubPolicies
from kdaug.views.policies.timm_randaugment import TimmRandAugment
from kdaug.views.policies.timm_strings import MAX_LEVEL, describe_levels, typical_levels
from kdaug.views.policies.trivialaugment import TrivialAugment
from kdaug.views.space import Range, Space, cutout_side
from kdaug.views.space_tables import get_space, get_sub_policy_space

SPACE_DESCRIPTIONS = {
    "paper-geometric": "arXiv 2003.11342, Section 4.1: five ops with a random level up to M, M 0..10",
    "tf-efficientnet": "RandAugment of the TPU EfficientNet code, M not clipped",
    "tf-efficientnet-autoaugment": "AutoAugment of the same code: longer shifts, larger cutouts",
    "autoaugment-cifar": "AutoAugment's released CIFAR code, levels 0..10",
    "pba": "PBA's released code, levels 0..10",
    "fast-autoaugment": "Fast AutoAugment's released code, levels 0..1, from negative to positive arguments",
    "timm": "timm's RandAugment, M 0..10, each op with probability 1/2",
    "timm-increasing": "the same with ops that get stronger with M (timm's option inc)",
    "timm-augmix": "timm's AugMix, M 0..10",
    "torchvision": "torchvision's RandAugment, M 0..30",
    "torchvision-autoaugment": "torchvision's AutoAugment, levels 0..9",
    "torchvision-wide": "torchvision's TrivialAugmentWide, levels 0..30",
}


@dataclass(frozen=True)
class PolicyDescription:
    """The ops of a policy at some levels.

    table: arguments as text; rows are `ops`, columns are `levels`. sub_policies: the sub-policies as text, or the
    segments of a schedule. kind: which of both. summary: how ops and levels are drawn, if the table does not show it.
    """

    space: Space
    ops: tuple[str, ...]
    levels: tuple[float, ...]
    table: tuple[tuple[str, ...], ...]
    sub_policies: tuple[str, ...] = ()
    kind: Literal["sub-policies", "segments"] = "sub-policies"
    summary: str = ""


def describe(policy: Policy, size: Size) -> list[PolicyDescription]:
    """Descriptions of the parts of `policy` whose ops have levels, for images of `size` (height, width)."""
    kinds = (RandAugment, TimmRandAugment, AugMix, TrivialAugment, SubPolicies, PopulationBasedAugmentation)
    return [_describe_part(part, size) for part in flatten_policies([policy]) if isinstance(part, kinds)]


def describe_space(name: str, size: Size) -> PolicyDescription:
    """All ops of the space `name` at a few levels, for images of `size` (height, width).

    Raises InputError for an unknown space.
    """
    space = get_space(name)
    return _describe_ops(space, tuple(space.ops), default_levels(space), size)


def _describe_part(policy: Any, size: Size) -> PolicyDescription:
    match policy:
        case RandAugment():
            space = get_space(policy.space)
            return _describe_ops(space, policy.ops or tuple(space.ops), (policy.magnitude,), size)
        case TimmRandAugment():
            return _describe_timm_randaugment(policy, size)
        case AugMix():
            return _describe_augmix(policy, size)
        case SubPolicies():
            lines = tuple(", then ".join(_format_step(*step) for step in steps) for steps in policy.sub_policies)
            return replace(describe_space(get_sub_policy_space(policy.space).name, size), sub_policies=lines)
        case PopulationBasedAugmentation():
            described = describe_space(get_sub_policy_space(policy.space).name, size)
            return replace(described, sub_policies=_format_segments(policy), kind="segments")
        case _:
            return describe_space(policy.space, size)


def _describe_timm_randaugment(policy: TimmRandAugment, size: Size) -> PolicyDescription:
    space = replace(get_space(policy.space), probability=policy.probability)
    settings = policy.magnitude, policy.noise, policy.max_level
    described = _describe_ops(space, tuple(space.ops), typical_levels(*settings), size)
    choice = "" if policy.weights is None else f" without replacement, weighted by {policy.weights}"
    return replace(described, summary=f"draws {policy.num_ops} ops{choice}; {describe_levels(*settings)}")


def _describe_augmix(policy: AugMix, size: Size) -> PolicyDescription:
    space = get_space(policy.space)
    settings = policy.magnitude, policy.noise, MAX_LEVEL
    described = _describe_ops(space, tuple(space.ops), typical_levels(*settings), size)
    depth = policy.depth or f"1 to {MAX_DRAWN_DEPTH}"
    return replace(
        described,
        summary=f"blends {policy.width} chains of {depth} ops with the image, with weights from "
        f"Dirichlet({policy.alpha:g}) and a share from Beta({policy.alpha:g}, {policy.alpha:g}); "
        f"{describe_levels(*settings)}",
    )


def _describe_ops(space: Space, ops: tuple[str, ...], levels: tuple[float, ...], size: Size) -> PolicyDescription:
    table = tuple(tuple(format_argument(space, op, level, size) for level in levels) for op in ops)
    return PolicyDescription(space, ops, levels, table)


def default_levels(space: Space) -> tuple[float, ...]:
    """A few levels of a space in increasing order."""
    if space.limit is None:
        return 0, 3, 5, 7, 10, 15, 28
    levels = [space.limit * fraction for fraction in (0, 0.3, 0.5, 0.7, 0.9, 1)]
    return tuple(float(round(level)) if space.integer_levels else level for level in levels)


def format_argument(space: Space, op: str, level: float, size: Size) -> str:
    """The argument of `op` at `level` for images of `size` as text: "± 27°", "up to ± 67 px", "3 bits", "× 1.72"."""
    op_range = space.ops.get(op)
    if op_range is None:
        return "nothing" if op == "none" else "applied"
    position = np.array([list(space.ops).index(op)])
    argument = space.arguments(position, np.array([level], float), np.ones(1), size)[0]
    value = float(argument[2] if op == "cutout" else argument[0])
    text = _format_value(op_range, value, size, degrees=level * 9 if op_range.unit == "shear degrees" else 0)
    return f"up to {text}" if space.level_mode == "uniform" else text


def _format_value(op_range: Range, value: float, size: Size, degrees: float) -> str:
    sign = "± " if op_range.signed else ""
    match op_range.unit:
        case "degrees":
            return f"{sign}{_format_number(abs(value))}°"
        case "shear":
            return f"{sign}{_format_number(abs(value))}"
        case "shear degrees":
            return f"{sign}{_format_number(degrees)}°"
        case "pixels" | "side fraction" if op_range.signed:
            return f"{sign}{_format_number(abs(value))} px"
        case "threshold":
            return "unchanged" if value >= 256 else f"inverts ≥ {_format_number(value)}"
        case "bits":
            if value < 1 or value >= 8:
                return "black" if value < 1 else "unchanged"
            return f"{_format_number(value)} bit{'s' * (value > 1)}"
        case "factor":
            return f"× {_format_number(value)}"
        case "1 ± factor":
            return f"× 1 ± {_format_number(value - 1)}"
        case "addition":
            return f"+ {_format_number(value)} below 128"
        case _:
            return f"{_format_number(float(cutout_side(op_range, np.array(value), size)))} px"


def format_op(op: tuple[Any, ...]) -> str:
    """An op of `ViewPlan.steps` with its main argument: "shear-x 0.31", "cutout 9 px", "crop +2 -1", "flip".

    Chains with their weights in the view: "augmix (12% invert > rotate 5.00, 30% equalize)".
    """
    match op:
        case "augmix", chains:
            parts = (f"{weight:.0%} {' > '.join(map(format_op, steps)) or 'unchanged'}" for weight, steps in chains)
            return f"augmix ({', '.join(parts)})"
        case "cutout", (_, _, side):
            return f"cutout {side:.0f} px"
        case "crop", (left, top, _, _):
            return f"crop {left:+.0f} {top:+.0f}"
        case name, (first, *_):
            return f"{name} {first:.2f}"
        case name, argument:
            return f"{name} {argument:.2f}"
    return str(op[0])


def _format_number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _format_step(op: str, probability: float, level: float) -> str:
    return f"{op} {level:.3g} ({probability:.0%})"


def _format_segments(policy: PopulationBasedAugmentation) -> tuple[str, ...]:
    """Each segment of the schedule within the run, with its epochs and the entries of positive probability."""
    ops, schedule = load_schedule(policy.name)
    segments = [policy.segment_of(epoch) for epoch in range(policy.epochs)]
    lines = []
    for segment in sorted(set(segments)):
        first = segments.index(segment)
        last = first + segments.count(segment) - 1
        entries = zip(ops, schedule["segments"][segment][1], strict=True)
        steps = ", ".join(_format_step(op, tenths / 10, level) for op, (tenths, level) in entries if tenths)
        lines.append(f"epoch {first}{f' to {last}' * (last > first)}: {steps or 'nothing'}")
    return tuple(lines)
