"""Policy specifications: text such as `autoaugment-cifar10,pad-crop-4,flip,cutout-16`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from kdaug.config import Views
from kdaug.errors import InputError, did_you_mean
from kdaug.views.plan import Color, parse_color
from kdaug.views.policies.augmix import AugMix, augmix
from kdaug.views.policies.composition import Policy, Sequential
from kdaug.views.policies.files import policy_fingerprint, read_policy_file
from kdaug.views.policies.magnitude_factors import read_factors
from kdaug.views.policies.pba import NAMES as PBA_NAMES
from kdaug.views.policies.pba import PopulationBasedAugmentation
from kdaug.views.policies.randaugment import RandAugment
from kdaug.views.policies.standard import CIFAR_MEAN, Cutout, Flip, NoPolicy, PadCrop, RandomErasing, SoftCrop
from kdaug.views.policies.sub_policies import PUBLISHED, SubPolicies, published_policy
from kdaug.views.policies.timm_randaugment import TimmRandAugment, timm_randaugment
from kdaug.views.policies.trivialaugment import TrivialAugment
from kdaug.views.space_tables import RANDAUGMENT_PAPER_OPS

_SIDE = re.compile(r"(?P<name>pad-crop|cutout)-(?P<side>\d{1,6})", re.ASCII)
_COMMON_OPTIONS = ("mean", "epochs")


def create_policy(spec_or_name: str, **options: Any) -> Policy:
    """Creates the policy of a specification; a comma-separated list gives policies applied in that order.

    `kdaug views` lists the specifications. Options replace or complete parts of the specification: num_ops
    (RandAugment), magnitude (RandAugment, timm's strings), space (policies that take @SPACE), probability (random
    erasing). All policies take mean, the fill (r, g, b) 0..255 for spaces that fill with the dataset's mean, and
    epochs, the length of the run, which schedules such as PBA need. An option of None has no effect.

    Raises InputError for an unknown specification or option, and for one that is incomplete or out of range.
    """
    values = {key: value for key, value in options.items() if value is not None}
    parts = [_parse(part) for part in spec_or_name.split(",")]
    known = {key for part in parts for key in part.options} | set(_COMMON_OPTIONS)
    for option in options:
        if option not in known:
            name = ", ".join(part.name for part in parts)
            if option in ("num_ops", "magnitude", "space", "probability"):
                raise InputError(f"policy {name} has no {option}")
            raise InputError(f"policy {name} has no option {option}{did_you_mean(option, sorted(known))}")
    mean = parse_color(values.get("mean", CIFAR_MEAN))
    epochs = _parse_integer(values["epochs"], "epochs") if "epochs" in values else None
    policies = [
        part.make(part.settings | {key: values[key] for key in part.options if key in values}, mean, epochs)
        for part in parts
    ]
    return policies[0] if len(policies) == 1 else Sequential(tuple(policies))


def spec_with_magnitude(spec: str, magnitude: float) -> str:
    """The specification with another magnitude for its RandAugment or AugMix. Raises InputError if it has none."""
    parts = spec.split(",")
    for position, part in enumerate(parts):
        if "magnitude" in _parse(part).options:
            policy = create_policy(part, magnitude=magnitude)
            assert isinstance(policy, RandAugment | TimmRandAugment | AugMix)
            return ",".join([*parts[:position], policy.spec, *parts[position + 1 :]])
    raise InputError(f"views.magnitude is {magnitude:g}, but policy {spec} has no magnitude")


def follows_epoch(spec: str) -> bool:
    """Whether the policy is a schedule over the run, whose plans also depend on the number of epochs (PBA)."""
    return any(_parse(part).name in PBA_NAMES for part in spec.split(","))


def pin_policy_files(spec: str) -> str:
    """The specification with the fingerprint of each policy file appended: `file:my.yaml#0123456789`.

    `create_policy` raises InputError for a pinned file whose content has changed. Raises InputError as `create_policy`.
    """
    return ",".join(_pin(part) if part.startswith("file:") else part for part in spec.split(","))


def policy_from_views(views: Views, mean: Color, crops_while_decoding: bool, epochs: int | None = None) -> Policy:
    """The policy of a recipe: augmentation, crop, flip and cutout in the usual order.

    With views.crop pad or soft the order is that of the AutoAugment release for CIFAR (arXiv 1805.09501): policy, crop,
    flip, cutout. Otherwise it is that of tensorflow/tpu for ImageNet: flip, policy, cutout, after a random resized crop
    if images are decoded for each epoch (`crops_while_decoding`).

    mean: the fill (r, g, b) 0..255 of padding and cutout. epochs: length of the run, which schedules such as PBA need.
    Raises InputError for settings that do not fit together, and as `create_policy`.
    """
    if views.crop == "random-resized" and not crops_while_decoding:
        raise InputError(
            "views.crop random-resized needs data.name folder, shards or hub", "set views.crop to pad or none"
        )
    policy = create_policy(views.policy, mean=mean, epochs=epochs)
    if views.magnitude_factors is not None:
        if not isinstance(policy, RandAugment):
            raise InputError(
                f"views.magnitude_factors is for RandAugment, but views.policy is {views.policy}",
                "use a policy such as randaugment-n2-m5@paper-geometric",
            )
        policy = replace(policy, factors=read_factors(views.magnitude_factors).values)
    flip: list[Policy] = [Flip()] if views.flip else []
    cutout: list[Policy] = [Cutout(views.cutout, mean)] if views.cutout else []
    crops: dict[str, Policy] = {
        "pad": PadCrop(views.pad, mean), "soft": SoftCrop(views.soft_crop_deviation, mean),
    }  # fmt: skip
    crop = crops.get(views.crop)
    try:
        return Sequential([*flip, policy, *cutout] if crop is None else [policy, crop, *flip, *cutout])
    except InputError as error:
        raise InputError(
            f"views.policy {views.policy} with views.crop, views.flip and views.cutout: {error.problem}", error.hint
        ) from None


@dataclass(frozen=True)
class _Part:
    """One policy of a specification: its settings, the options it takes, and the function that creates it."""

    name: str
    settings: dict[str, Any]
    options: tuple[str, ...]
    make: Callable[[dict[str, Any], Color, int | None], Policy]


def _parse(text: str) -> _Part:
    if text.startswith("file:"):
        return _Part(text, {}, (), lambda settings, mean, epochs: _from_file(text, mean))
    if text in ("none", "flip"):
        return _Part(text, {}, (), lambda settings, mean, epochs: Flip() if text == "flip" else NoPolicy())
    side = _SIDE.fullmatch(text)
    if side:
        kind = PadCrop if side["name"] == "pad-crop" else Cutout
        return _Part(text, {}, (), lambda settings, mean, epochs: kind(int(side["side"]), mean))
    for kind_name, policy_kind in _KINDS.items():
        match = policy_kind.regex.fullmatch(text)
        if match:
            settings = {key: value for key, value in match.groupdict().items() if value is not None}
            name = settings["name"] if kind_name in ("sub-policies", "pba") else kind_name
            return _Part(name, settings, policy_kind.options, partial(policy_kind.make, text))
    hint = did_you_mean(text, list(SPEC_DESCRIPTIONS))
    raise InputError(f"there is no policy {text!r}{hint}", "" if hint else "choose one that `kdaug views` lists")


def _randaugment(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    for part in ("num_ops", "magnitude", "space"):
        if part not in settings:
            raise InputError(f"policy {text} has no {part}", "write it as in randaugment-n2-m9@tf-efficientnet")
    ops = RANDAUGMENT_PAPER_OPS if "paper" in settings else None
    num_ops = _parse_integer(settings["num_ops"], "num_ops")
    magnitude = _parse_number(settings["magnitude"], "magnitude")
    return RandAugment(num_ops, magnitude, settings["space"], mean, ops)


def _trivialaugment(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    if "space" not in settings:
        raise InputError(f"policy {text} has no space", "write it as in trivialaugment@torchvision")
    space = settings["space"]
    return TrivialAugment("torchvision-wide" if space == "torchvision" else space, mean)


def _sub_policies(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    return published_policy(settings["name"], settings.get("space"), mean)


def _pba(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    if epochs is None:
        raise InputError(
            f"policy {text} is a schedule over the epochs of a run, but epochs is not given",
            f"give it as in create_policy({text!r}, epochs=200)",
        )
    return PopulationBasedAugmentation(settings["name"], epochs, settings.get("space", "pba"), mean)


def _random_erasing(text: str, settings: dict[str, Any], mean: Color, epochs: int | None) -> Policy:
    if "probability" not in settings:
        raise InputError(f"policy {text} has no probability", "write it as in random-erasing-p0.25")
    return RandomErasing(_parse_number(settings["probability"], "probability"), settings.get("space", "timm"), mean)


def _timm_string(
    create: Callable[[str, int | None], Policy], text: str, settings: dict[str, Any], mean: Color, epochs: int | None
) -> Policy:
    if "space" in settings:
        raise InputError(f"policy {text} has a space, but the ops of timm's strings are fixed", "leave out @ and space")
    magnitude = _parse_integer(settings["magnitude"], "magnitude") if "magnitude" in settings else None
    return create(text, magnitude)


_Maker = Callable[[str, dict[str, Any], Color, int | None], Policy]


@dataclass(frozen=True)
class _Kind:
    """A kind of policy whose specification is `pattern`, optionally followed by @SPACE.

    pattern: regular expression whose named groups are settings. options: of `create_policy`. make: creates the policy
    of (specification, settings, mean, epochs). examples: specifications with a description, for `kdaug views`.
    """

    pattern: str
    options: tuple[str, ...]
    make: _Maker
    examples: dict[str, str]

    @cached_property
    def regex(self) -> re.Pattern[str]:
        return re.compile(rf"(?P<name>{self.pattern})(?:@(?P<space>[\w-]+))?", re.ASCII)


_KINDS = {
    "randaugment": _Kind(
        r"randaugment(?P<paper>14)?(?:-n(?P<num_ops>\d+))?(?:-m(?P<magnitude>\d+(?:\.\d+)?))?",
        ("num_ops", "magnitude", "space"),
        _randaugment,
        {
            "randaugment-n2-m9@tf-efficientnet": "RandAugment: 2 ops at magnitude 9, in any space",
            "randaugment-n2-m5@paper-geometric": "RandAugment in the space of arXiv 2003.11342, Section 4.1",
            "randaugment14-n2-m9@tf-efficientnet": "RandAugment with the fourteen ops of its paper",
        },
    ),
    "trivialaugment": _Kind(
        r"trivialaugment",
        ("space",),
        _trivialaugment,
        {"trivialaugment@torchvision": "TrivialAugmentWide: one op at a random level"},
    ),
    "sub-policies": _Kind(
        "|".join(PUBLISHED),
        ("space",),
        _sub_policies,
        {
            "autoaugment-cifar10": "AutoAugment's 25 sub-policies for CIFAR",
            "autoaugment-cifar10-95": "the 95 sub-policies of AutoAugment's released code for CIFAR",
            "autoaugment-svhn": "AutoAugment's 25 sub-policies for SVHN",
            "autoaugment-imagenet": "AutoAugment's 25 sub-policies of the EfficientNet code (policy v0)",
            "autoaugment-imagenet-paper": "AutoAugment's 25 sub-policies for ImageNet from its paper",
            "fast-autoaugment-cifar10": "Fast AutoAugment's 493 sub-policies for CIFAR",
            "fast-autoaugment-svhn": "Fast AutoAugment's 497 sub-policies for SVHN",
            "fast-autoaugment-imagenet": "Fast AutoAugment's 498 sub-policies for ImageNet",
        },
    ),
    "pba": _Kind(
        "|".join(PBA_NAMES),
        ("space",),
        _pba,
        {
            "pba-cifar10": "PBA's schedule over the epochs for CIFAR",
            "pba-svhn": "PBA's schedule over the epochs for SVHN",
        },
    ),
    "rand": _Kind(
        r"rand(?:-[\w.]*)*",
        ("magnitude",),
        partial(_timm_string, timm_randaugment),
        {
            "rand-m9-mstd0.5-inc1": "timm's RandAugment string, with the parts m, n, p, mstd, mmax, inc, w0, tweights",
        },
    ),
    "augmix": _Kind(
        r"augmix(?:-[\w.]*)*",
        ("magnitude",),
        partial(_timm_string, augmix),
        {
            "augmix-m3-w3": "AugMix as in timm's string, with the parts m, w, d, a, b and mstd",
        },
    ),
    "random-erasing": _Kind(
        r"random-erasing(?:-p(?P<probability>\d+(?:\.\d+)?))?",
        ("probability", "space"),
        _random_erasing,
        {
            "random-erasing-p0.25": "erases a rectangle with probability 0.25 (@timm, the default, or @torchvision)",
        },
    ),
}
"""Every policy with settings or a space; the first kind whose pattern matches is used."""

SPEC_DESCRIPTIONS = {
    "none": "no augmentation",
    **{spec: description for kind in _KINDS.values() for spec, description in kind.examples.items()},
    "file:my-policy.yaml": "your own sub-policies, from a YAML or JSON file",
    "pad-crop-4": "pads 4 pixels on each side, then crops to the original size",
    "flip": "flips left-right with probability 1/2",
    "cutout-16": "erases a square of 16 pixels",
}
"""Every specification, or an example of its kind, with a description."""


def _parse_number(value: Any, what: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{what} is {value!r}, but must be a number") from None


def _parse_integer(value: Any, what: str) -> int:
    number = _parse_number(value, what)
    if not number.is_integer():
        raise InputError(f"{what} is {value!r}, but must be a whole number")
    return int(number)


def _split_pin(text: str) -> tuple[str, str]:
    path, _, pin = text.removeprefix("file:").partition("#")
    if not path:
        raise InputError(f"policy {text!r} has no file name", "write it as in file:my-policy.yaml")
    return path, pin


def _pin(text: str) -> str:
    return f"file:{_split_pin(text)[0]}#{policy_fingerprint(_from_file(text, CIFAR_MEAN))}"


def _from_file(text: str, mean: Color) -> SubPolicies:
    path, pin = _split_pin(text)
    policy = read_policy_file(path, mean)
    fingerprint = policy_fingerprint(policy)
    if pin not in ("", fingerprint):
        raise InputError(
            f"policy file {path} has changed: its fingerprint is #{fingerprint}, not #{pin}",
            "restore the file, or use it as a new policy, without the fingerprint",
        )
    return policy
