"""Policy files: the user's own sub-policies in YAML or JSON."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NoReturn

import yaml

from kdaug.config import describe_value, parse_plain_yaml
from kdaug.errors import InputError, did_you_mean, one_line
from kdaug.views.plan import Color
from kdaug.views.policies.standard import CIFAR_MEAN
from kdaug.views.policies.sub_policies import Step, SubPolicies
from kdaug.views.space_tables import get_space

_KEYS = ["space", "sub_policies"]
_EXAMPLE = "a list such as [[rotate, 0.5, 9], [invert, 0.2, 0]]"


def read_policy_file(path: str | Path, mean: Color = CIFAR_MEAN) -> SubPolicies:
    """Reads a policy file: JSON if the name ends in .json, otherwise YAML.

    The file has two keys: space, and sub_policies, a list of lists of [op, probability, level]. mean: as in
    SubPolicies. Raises InputError with the file, sub-policy and entry for unknown or repeated keys, unknown ops or
    spaces, probabilities outside 0..1, levels out of the space's range, empty lists, and YAML tags.
    """
    name = f"policy file {path}"
    tree = _parse(path, name)
    if not isinstance(tree, dict):
        raise InputError(f"{name}: must be a mapping with {' and '.join(_KEYS)}, not {describe_value(tree)}")
    for key in tree:
        if key not in _KEYS:
            suggestion = did_you_mean(str(key), _KEYS) or f"; use only {' and '.join(_KEYS)}"
            raise InputError(f"{name}: {key} is not a key of a policy{suggestion}")
    for key in _KEYS:
        if key not in tree:
            raise InputError(f"{name}: {key} is missing")
    if not isinstance(tree["space"], str):
        raise InputError(f"{name}: space must be text, not {describe_value(tree['space'])}")
    try:
        get_space(tree["space"])
    except InputError as error:
        raise InputError(f"{name}: {error.problem}", error.hint) from None
    sub_policies = tuple(
        tuple(
            _parse_step(step, f"{name}: sub-policy {number}, entry {entry}")
            for entry, step in enumerate(_check_list(steps, f"{name}: sub-policy {number}"), 1)
        )
        for number, steps in enumerate(_check_list(tree["sub_policies"], f"{name}: sub_policies"), 1)
    )
    return SubPolicies(name, tree["space"], sub_policies, mean)


def policy_fingerprint(policy: SubPolicies) -> str:
    """The first ten hexadecimal digits of the SHA-256 of space and sub-policies; comments and layout have no effect."""
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
            return json.loads(text, object_pairs_hook=_refuse_repeated_keys, parse_constant=_refuse_constant)
        return parse_plain_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{name}: is not plain {kind}: {one_line(error)}") from None


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"key {key} is repeated")
    return dict(pairs)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _check_list(value: Any, where: str) -> list[Any]:
    """Returns `value` if it is a list that is not empty."""
    if not isinstance(value, list):
        raise InputError(f"{where} must be {_EXAMPLE}, not {describe_value(value)}")
    if not value:
        raise InputError(f"{where} is empty", f"write {_EXAMPLE}")
    return value


def _parse_step(entry: Any, where: str) -> Step:
    if not isinstance(entry, list) or len(entry) != 3:
        raise InputError(f"{where} must be [op, probability, level], not {describe_value(entry)}")
    op, probability, level = entry
    if not isinstance(op, str):
        raise InputError(f"{where}: the op must be text, not {describe_value(op)}")
    for what, value in (("probability", probability), ("level", level)):
        if type(value) not in (int, float) or abs(value) > 1e9 or not math.isfinite(value):
            raise InputError(f"{where}: the {what} must be a finite number, not {describe_value(value)}")
    return op, float(probability), float(level)
