"""A user's own policy: a small YAML or JSON file with a space and sub-policies."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NoReturn

import yaml

from kdaug.config import parse_plain_yaml, shown
from kdaug.errors import InputError, nearest
from kdaug.views.plan import Color
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.policies.sub_policies import Step, SubPolicies
from kdaug.views.spaces import get_space

_KEYS = ["space", "sub_policies"]
_EXAMPLE = "a list such as [[rotate, 0.5, 9], [invert, 0.2, 0]]"


def read_policy_file(path: str | Path, mean: Color = CIFAR_MEAN) -> SubPolicies:
    """The policy in the file at `path`, YAML or (ending in .json) JSON.

    It has two keys: space, and sub_policies, a list of lists of [op, probability, level]. Raises InputError naming the
    file, the sub-policy and the entry for whatever does not fit: unknown or repeated keys, ops and spaces that there
    are not, probabilities outside 0..1, levels outside the space's scale, empty lists, tags.
    """
    name = f"policy file {path}"
    tree = _parse(path, name)
    if not isinstance(tree, dict):
        raise InputError(f"{name}: must be a mapping with {' and '.join(_KEYS)}, not {shown(tree)}")
    for key in tree:
        if key not in _KEYS:
            hint = nearest(str(key), _KEYS) or f"; there are {', '.join(_KEYS)}"
            raise InputError(f"{name}: {key} is not a key of a policy{hint}")
    for key in _KEYS:
        if key not in tree:
            raise InputError(f"{name}: {key} is missing")
    if not isinstance(tree["space"], str):
        raise InputError(f"{name}: space must be text, not {shown(tree['space'])}")
    try:
        get_space(tree["space"])
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    sub_policies = tuple(
        tuple(_step(step, f"{name}: sub-policy {place}, entry {number}") for number, step in enumerate(steps, 1))
        for place, steps in enumerate(_filled(tree["sub_policies"], f"{name}: sub_policies"), 1)
        if _filled(steps, f"{name}: sub-policy {place}")
    )
    return SubPolicies(name, tree["space"], sub_policies, mean)


def policy_fingerprint(policy: SubPolicies) -> str:
    """Ten hexadecimal digits of the SHA-256 of what a policy file says; spelling and comments do not matter."""
    content = json.dumps([policy.space, policy.sub_policies])
    return hashlib.sha256(content.encode()).hexdigest()[:10]


def _parse(path: str | Path, name: str) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({error.__class__.__name__}: {error})") from None
    kind = "JSON" if str(path).endswith(".json") else "YAML"
    try:
        if kind == "JSON":
            return json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_refuse_constant)
        return parse_plain_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: not readable as plain {kind}: {' '.join(str(error).split())}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"{key} stands more than once")
    return dict(pairs)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _filled(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} must be {_EXAMPLE}, not {shown(value)}")
    if not value:
        raise InputError(f"{where} is empty; write {_EXAMPLE}")
    return value


def _step(entry: Any, where: str) -> Step:
    if not isinstance(entry, list) or len(entry) != 3:
        raise InputError(f"{where} must be [op, probability, level], not {shown(entry)}")
    op, probability, level = entry
    if not isinstance(op, str):
        raise InputError(f"{where}: the op must be text, not {shown(op)}")
    for what, value in (("probability", probability), ("level", level)):
        if type(value) not in (int, float) or abs(value) > 1e9 or not math.isfinite(value):
            raise InputError(f"{where}: the {what} must be a finite number, not {shown(value)}")
    return op, float(probability), float(level)
