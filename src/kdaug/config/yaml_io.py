"""Recipes as YAML. Reading is strict: no tags, no unknown or repeated keys, no wrong types."""

from __future__ import annotations

import dataclasses
import re
import reprlib
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union

import yaml

from kdaug.config.checks import check
from kdaug.config.methods import with_method
from kdaug.config.recipe import NetworkArguments, Recipe, Supervision
from kdaug.errors import InputError, did_you_mean


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as nested dicts, lists and scalars, in the order of declaration."""
    return {key: _plain(value) for key, value in dataclasses.asdict(recipe).items()}


def to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML text, which `from_yaml` reads back."""
    return yaml.dump(to_dict(recipe), Dumper=_PlainDumper, sort_keys=False, allow_unicode=True)


def from_yaml(text: str, where: str = "recipe") -> Recipe:
    """The recipe in YAML `text`; missing settings keep their defaults.

    Raises InputError, with `where` at the start of its message, for invalid YAML, tags, unknown or repeated keys, wrong
    types and invalid values.
    """
    try:
        tree = parse_plain_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
        raise InputError(f"{where}: not readable as plain YAML: {reason}") from None
    if tree is None:
        raise InputError(f"{where} is empty", "kdaug recipes show NAME prints a recipe to start from")
    if isinstance(tree, dict) and isinstance(tree.get("supervision"), dict):
        tree["supervision"] = _filled(tree["supervision"], Supervision(), where)
    return _recipe_from_tree(tree, where)


def with_settings(recipe: Recipe, values: Mapping[str, Any], where: str) -> Recipe:
    """The recipe with `values` in place of some settings: dotted name to value, with the types that YAML gives.

    Raises InputError, with `where` at the start of its message, for unknown names, wrong types and invalid values.
    """
    tree = to_dict(recipe)
    known = [f"{section}.{name}" for section, settings in tree.items() for name in settings]
    for dotted, value in values.items():
        if dotted not in known:
            raise InputError(f"{where}: {dotted} is not a setting{did_you_mean(dotted, known)}")
        section, _, name = dotted.partition(".")
        tree[section][name] = value
    if "supervision.method" in values:
        given = {name: tree["supervision"][name] for name in tree["supervision"] if f"supervision.{name}" in values}
        tree["supervision"] = _filled(given, recipe.supervision, where)
    return _recipe_from_tree(tree, where)


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in the YAML file at `path`. Raises InputError if it is missing, not UTF-8 text, or not a recipe."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"recipe {path} cannot be read: {reason}") from None
    return from_yaml(text, where=f"recipe {path}")


def parse_plain_yaml(text: str) -> Any:
    """YAML `text` as nested dicts, lists and scalars. Raises YAMLError or ValueError for tags and invalid YAML."""
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag:
            raise yaml.YAMLError(f"tag {tag} is not allowed, {event.start_mark}")
    return yaml.load(text, Loader=_StrictLoader)


def describe_value(value: Any) -> str:
    """A value and its type for an error message, shortened; YAML aliases can make a small file a huge value."""
    return f"{_SHORT.repr(value)} ({type(value).__name__})"


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 4, 4
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 200


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number and refuses repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is repeated", node.start_mark)
        return super().construct_mapping(node, deep)


class _PlainDumper(yaml.SafeDumper):
    """SafeDumper that quotes text which _StrictLoader would not read as text."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = '"' if set(text) & set("\x85\u2028\u2029") else None  # line breaks to YAML 1.1
        return self.represent_scalar("tag:yaml.org,2002:str", text, style)


_PlainDumper.add_representer(str, _PlainDumper.represent_text)
for _class in (_StrictLoader, _PlainDumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _filled(given: dict[Any, Any], base: Supervision, where: str) -> dict[Any, Any]:
    """`given`, settings of supervision, with those that its method sets for `base`; without changes if it has none."""
    if given.get("method") is None:
        return given
    method = _convert(typing.get_type_hints(Supervision)["method"], given["method"], "supervision.method", where)
    return {**dataclasses.asdict(with_method(base, method)), **given, "method": None}


def _recipe_from_tree(tree: Any, where: str) -> Recipe:
    recipe: Recipe = _build(Recipe, tree, "", where)
    try:
        return check(recipe)
    except InputError as error:
        raise InputError(f"{where}: {error.problem}", error.hint) from None


def _build(kind: Any, tree: Any, path: str, where: str) -> Any:
    """An instance of dataclass `kind` from the dict `tree`; `path` is its dotted name in the recipe."""
    if not isinstance(tree, dict):
        raise InputError(f"{where}: {path or 'the file'} must be a mapping of settings, not {describe_value(tree)}")
    types_of = typing.get_type_hints(kind)
    for key in tree:
        if key not in types_of:
            known = [_dotted(path, name) for name in types_of]
            name = _dotted(path, str(key))
            raise InputError(f"{where}: {name} is not a setting{did_you_mean(name, known) or _choices(known)}")
    values = {}
    for key, value in tree.items():
        name, wanted = _dotted(path, key), types_of[key]
        build = _build if dataclasses.is_dataclass(wanted) else _convert
        values[key] = build(wanted, value, name, where)
    return kind(**values)


def _convert(wanted: Any, value: Any, name: str, where: str) -> Any:
    """`value` as type `wanted`; the only conversions are int to float and list to tuple."""
    options = typing.get_args(wanted) if typing.get_origin(wanted) in (Union, types.UnionType) else (wanted,)
    for option in options:
        origin = typing.get_origin(option)
        if origin is Literal and value in typing.get_args(option):
            return value
        if option is type(None) and value is None:
            return None
        if option is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
            return float(value)
        if origin is tuple and isinstance(value, list | tuple):
            kind = typing.get_args(option)[0]
            return tuple(_convert(kind, item, f"{name}[{i}]", where) for i, item in enumerate(value))
        if origin is dict and isinstance(value, dict):
            kind = typing.get_args(option)[1]
            return {_convert(str, key, f"a key of {name}", where): _convert(kind, item, f"{name}.{key}", where)
                    for key, item in value.items()}  # fmt: skip
        if isinstance(option, type) and type(value) is option and option is not float:
            return value
    first = options[0]
    if typing.get_origin(first) is Literal:
        known = list(typing.get_args(first))
        raise InputError(
            f"{where}: {name} is {describe_value(value)}{did_you_mean(str(value), known) or _choices(known)}"
        )
    raise InputError(f"{where}: {name} must be {_describe_type(options)}, not {describe_value(value)}")


def _dotted(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _choices(known: list[str]) -> str:
    return f"; choose one of {', '.join(known)}"


def _describe_type(options: tuple[Any, ...]) -> str:
    names = {
        int: "a whole number", float: "a finite number", str: "text", bool: "true or false", type(None): "null",
        tuple[float, ...]: "a list of numbers", NetworkArguments: "a mapping of names to values",
    }  # fmt: skip
    return " or ".join(names.get(option, "a list of names") for option in options)
