"""Specifications: the text that names a policy, such as `autoaugment-cifar10,pad-crop-4,flip,cutout-16`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from kdaug.config import Views
from kdaug.errors import InputError, nearest
from kdaug.views.plan import Color, parse_color
from kdaug.views.policies.composition import Policy, Sequential
from kdaug.views.policies.files import policy_fingerprint, read_policy_file
from kdaug.views.policies.pba import NAMES as PBA_NAMES
from kdaug.views.policies.pba import PopulationBasedAugmentation
from kdaug.views.policies.randaugment import RandAugment
from kdaug.views.policies.standard import CIFAR_MEAN, Cutout, Flip, NoPolicy, PadCrop, RandomErasing
from kdaug.views.policies.sub_policies import PUBLISHED, SubPolicies, published
from kdaug.views.policies.trivialaugment import TrivialAugment
from kdaug.views.spaces import RANDAUGMENT_PAPER_OPS

KNOWN = {
    "none": "leaves images as they are",
    "randaugment-n2-m9@tf-efficientnet": "RandAugment: 2 ops at magnitude 9, in any space",
    "randaugment-n2-m5@paper-geometric": "the same in the space of arXiv 2003.11342, Section 4.1",
    "randaugment14-n2-m9@tf-efficientnet": "RandAugment with the fourteen ops of its paper",
    "trivialaugment@torchvision": "TrivialAugmentWide: one op at a random level",
    "autoaugment-cifar10": "AutoAugment's 25 sub-policies for CIFAR",
    "autoaugment-cifar10-95": "the 95 that its released code draws from",
    "autoaugment-svhn": "AutoAugment's 25 for SVHN",
    "autoaugment-imagenet": "AutoAugment's 25 as EfficientNet trains with them (policy v0)",
    "autoaugment-imagenet-paper": "AutoAugment's 25 for ImageNet as its paper prints them",
    "fast-autoaugment-cifar10": "Fast AutoAugment's 493 sub-policies for CIFAR",
    "fast-autoaugment-svhn": "its 497 for SVHN",
    "fast-autoaugment-imagenet": "its 498 for ImageNet",
    "pba-cifar10": "PBA's schedule for CIFAR; follows the epoch",
    "pba-svhn": "PBA's schedule for SVHN; follows the epoch",
    "file:my-policy.yaml": "sub-policies of your own",
    "pad-crop-4": "pads 4 pixels, crops back to size",
    "flip": "mirrors left-right with probability 1/2",
    "cutout-16": "erases a square of 16 pixels",
    "random-erasing-p0.25": "erases a rectangle with probability 0.25 (@timm, the default, or @torchvision)",
}
"""Specifications there are, or an example of their kind, with what they do."""

_PATTERNS = {
    "randaugment": r"randaugment(?P<paper>14)?(?:-n(?P<num_ops>\d+))?(?:-m(?P<magnitude>\d+(?:\.\d+)?))?",
    "trivialaugment": r"trivialaugment",
    "sub-policies": "|".join(PUBLISHED),
    "pba": "|".join(PBA_NAMES),
    "random-erasing": r"random-erasing(?:-p(?P<probability>\d+(?:\.\d+)?))?",
}
_IN_A_SPACE = {
    kind: re.compile(rf"(?P<name>{pattern})(?:@(?P<space>[\w-]+))?", re.ASCII) for kind, pattern in _PATTERNS.items()
}
_SIDE = re.compile(r"(?P<name>pad-crop|cutout)-(?P<side>\d{1,6})", re.ASCII)
_FOR_ALL = ("mean", "epochs")


def create_policy(spec_or_name: str, **options: Any) -> Policy:
    """The policy that a specification names; several with commas between them, one after the other.

    `kdaug views` lists the specifications. Options replace parts of it: num_ops, magnitude (RandAugment), space
    (anything that takes @SPACE), probability (random erasing); for all policies mean (fill 0..255 per channel
    where the fill is the data's mean) and epochs (how many the run has, for policies that follow the epoch). Raises
    InputError for a specification or option that there is not, or that lacks a part.
    """
    given = {key: value for key, value in options.items() if value is not None}
    parts = [_parse(part) for part in spec_or_name.split(",")]
    known = {key for part in parts for key in part.options} | set(_FOR_ALL)
    for option in options:
        if option not in known:
            raise InputError(_no_option(", ".join(part.name for part in parts), option, sorted(known)))
    mean = parse_color(given.get("mean", CIFAR_MEAN))
    epochs = _whole(given["epochs"], "epochs") if "epochs" in given else None
    policies = [
        part.make(part.settings | {key: given[key] for key in part.options if key in given}, mean, epochs)
        for part in parts
    ]
    return policies[0] if len(policies) == 1 else Sequential(tuple(policies))


def spec_with_magnitude(spec: str, magnitude: float) -> str:
    """The specification with another magnitude of its RandAugment; InputError if it has none."""
    parts = spec.split(",")
    for place, part in enumerate(parts):
        if "magnitude" in _parse(part).options:
            policy = create_policy(part, magnitude=magnitude)
            assert isinstance(policy, RandAugment)
            return ",".join([*parts[:place], policy.spec, *parts[place + 1 :]])
    raise InputError(f"views.magnitude is {magnitude:g}, but policy {spec} has no magnitude")


def follows_epoch(spec: str) -> bool:
    """Whether the policy's draws depend on how far the run has come, beyond the epoch's number."""
    return any(_parse(part).name in PBA_NAMES for part in spec.split(","))


def pin_policy_files(spec: str) -> str:
    """The specification with the content of policy files pinned: `file:my.yaml#0123456789`.

    `create_policy` refuses a pinned file that says something else by then. InputError as `create_policy`.
    """
    return ",".join(_pinned(part) if part.startswith("file:") else part for part in spec.split(","))


def policy_from_views(views: Views, mean: Color, cropped_at_decoding: bool, epochs: int | None = None) -> Policy:
    """The whole view of a recipe: policy, crop, flip and cutout in the field's order.

    CIFAR style (arXiv 1805.09501's release): policy, pad-crop, flip, cutout. Where images are cropped while they are
    decoded, ImageNet style (tensorflow/tpu): crop, flip, policy, cutout. `mean` fills what padding and cutout expose;
    `epochs` is how many the run has, for policies that follow the epoch.
    """
    if views.crop == "random-resized" and not cropped_at_decoding:
        raise InputError(
            "views.crop random-resized needs data.name folder, shards or hub; sets held in memory take pad or none"
        )
    policy = create_policy(views.policy, mean=mean, epochs=epochs)
    flip: list[Policy] = [Flip()] if views.flip else []
    cutout: list[Policy] = [Cutout(views.cutout, mean)] if views.cutout else []
    padded = [policy, PadCrop(views.pad, mean), *flip, *cutout]
    try:
        return Sequential(padded if views.crop == "pad" else [*flip, policy, *cutout])
    except InputError as error:
        raise InputError(
            f"views.policy {views.policy} together with views.crop, views.flip and views.cutout: {error}"
        ) from None


@dataclass(frozen=True)
class _Part:
    """One policy of a specification: what it states, which options it takes, and how it is made of both."""

    name: str
    settings: dict[str, Any]
    options: tuple[str, ...]
    make: Callable[[dict[str, Any], Color, int | None], Policy]


def _parse(text: str) -> _Part:
    if text.startswith("file:"):
        return _Part(text, {}, (), lambda settings, mean, epochs: _from_file(text, mean))
    if text == "none":
        return _Part(text, {}, (), lambda settings, mean, epochs: NoPolicy())
    if text == "flip":
        return _Part(text, {}, (), lambda settings, mean, epochs: Flip())
    side = _SIDE.fullmatch(text)
    if side:
        kind = PadCrop if side["name"] == "pad-crop" else Cutout
        return _Part(text, {}, (), lambda settings, mean, epochs: kind(int(side["side"]), mean))
    for kind_name, pattern in _IN_A_SPACE.items():
        match = pattern.fullmatch(text)
        if match:
            options, make = _MAKERS[kind_name]
            settings = {key: value for key, value in match.groupdict().items() if value is not None}
            name = settings["name"] if kind_name in ("sub-policies", "pba") else kind_name
            return _Part(name, settings, options, partial(make, text))
    known = list(KNOWN)
    raise InputError(
        f"there is no policy {text!r}{nearest(text, known) or '; write one like ' + ', '.join(known[:3])}"
        " (kdaug views lists them)"
    )


def _randaugment(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    for part in ("num_ops", "magnitude", "space"):
        if part not in settings:
            raise InputError(f"policy {text} lacks its {part}; write randaugment-n2-m9@tf-efficientnet")
    ops = RANDAUGMENT_PAPER_OPS if "paper" in settings else None
    num_ops, magnitude = _whole(settings["num_ops"], "num_ops"), _number(settings["magnitude"], "magnitude")
    return RandAugment(num_ops, magnitude, settings["space"], mean, ops)


def _trivialaugment(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    if "space" not in settings:
        raise InputError(f"policy {text} lacks its space; write trivialaugment@torchvision")
    space = settings["space"]
    return TrivialAugment("torchvision-wide" if space == "torchvision" else space, mean)


def _sub_policies(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    return published(settings["name"], settings.get("space"), mean)


def _pba(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    if epochs is None:
        raise InputError(
            f"policy {text} follows the epoch; say how many the run has: create_policy({text!r}, epochs=200)"
        )
    return PopulationBasedAugmentation(settings["name"], epochs, settings.get("space", "pba"), mean)


def _random_erasing(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    if "probability" not in settings:
        raise InputError(f"policy {text} lacks its probability; write random-erasing-p0.25")
    return RandomErasing(_number(settings["probability"], "probability"), settings.get("space", "timm"), mean)


_Maker = Callable[[str, dict[str, Any], Color, int | None], Policy]
_MAKERS: dict[str, tuple[tuple[str, ...], _Maker]] = {
    "randaugment": (("num_ops", "magnitude", "space"), _randaugment),
    "trivialaugment": (("space",), _trivialaugment),
    "sub-policies": (("space",), _sub_policies),
    "pba": (("space",), _pba),
    "random-erasing": (("probability", "space"), _random_erasing),
}


def _number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} is {value!r}, but must be a number") from None


def _whole(value: Any, what: str) -> int:
    number = _number(value, what)
    if not number.is_integer():
        raise InputError(f"{what} is {value!r}, but must be a whole number")
    return int(number)


def _no_option(name: str, option: str, known: list[str]) -> str:
    if option in ("num_ops", "magnitude", "space", "probability"):
        return f"policy {name} has no {option}"
    return f"policy {name} has no option {option}{nearest(option, known)}"


def _path_and_pin(text: str) -> tuple[str, str]:
    path, _, pin = text.removeprefix("file:").partition("#")
    if not path:
        raise InputError(f"policy {text!r} names no file; write file:my-policy.yaml")
    return path, pin


def _pinned(text: str) -> str:
    path, _ = _path_and_pin(text)
    policy = _from_file(text, CIFAR_MEAN)
    return f"file:{path}#{policy_fingerprint(policy)}"


def _from_file(text: str, mean: Color) -> SubPolicies:
    path, pin = _path_and_pin(text)
    policy = read_policy_file(path, mean)
    if pin and pin != policy_fingerprint(policy):
        raise InputError(
            f"policy file {path} says something else than when the recipe was written: "
            f"then #{pin}, now #{policy_fingerprint(policy)}"
        )
    return policy
