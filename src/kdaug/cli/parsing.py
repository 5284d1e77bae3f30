"""Parsing with tyro: one flag per field of a dataclass, with its docstring as help and one-line errors."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import typing
from typing import Any, TypeVar

import tyro
import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from kdaug.config import parse_plain_yaml
from kdaug.errors import InputError

T = TypeVar("T")


def parse(kind: type[T], arguments: list[str], program: str, **options: Any) -> T:
    """An instance of the dataclass `kind` from command-line `arguments`; `options` are passed to tyro.cli.

    `--help` prints tyro's help and exits. Raises InputError for invalid arguments.
    """
    stderr = io.StringIO()
    # indent example commands: tyro joins lines, unless the next one begins with something other than a letter
    options = {"description": re.sub(r"^(?=kdaug )", "  ", inspect.getdoc(kind) or "", flags=re.MULTILINE), **options}
    arguments = [re.sub(r"^--no-([\w-]+)\.", r"--\1.no-", argument) for argument in arguments]  # as tyro names them
    try:
        with contextlib.redirect_stderr(stderr), _REGISTRY:
            parsed: T = tyro.cli(kind, args=arguments, prog=program, config=(tyro.conf.AvoidSubcommands,), **options)
            return parsed
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_first_error(stderr.getvalue())} ({program} --help lists all settings)") from None


OPTIONAL_FILE = PrimitiveConstructorSpec[str | None](
    nargs=(0, 1),
    metavar="[FILE]",
    instance_from_str=lambda words: words[0] if words else "",
    is_instance=lambda value: value is None or isinstance(value, str),
    str_from_instance=lambda value: [str(value)],
)
"""A flag that may be followed by a file: None without the flag, the empty string with the flag alone."""


def _assignments(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[dict[str, Any]] | None:
    """A dict as KEY=VALUE words, with values as in YAML; none of them: the empty dict."""
    if typing.get_origin(info.type) is not dict:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="[KEY=VALUE ...]",
        instance_from_str=_parse_assignments,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda values: [f"{key}={_scalar_text(value)}" for key, value in values.items()],
    )


def _parse_assignments(words: list[str]) -> dict[str, Any]:
    """Raises ValueError, which tyro reports, for a word that is not KEY=VALUE or whose value is not a scalar."""
    values: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise ValueError(f"{word!r} must be KEY=VALUE")
        if key in values:
            raise ValueError(f"{key} is given twice")
        values[key] = _parse_scalar(text)
    return values


def _scalar_text(value: int | float | str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parse_scalar(text: str) -> int | float | str | bool:
    try:
        value = parse_plain_yaml(text) if text else text
    except yaml.YAMLError:
        value = None
    if not isinstance(value, int | float | str):
        raise ValueError(f"{text} must be a number, text, true or false")
    return value


_REGISTRY = ConstructorRegistry()
_REGISTRY.primitive_rule(_assignments)


def _first_error(box: str) -> str:
    """The first error in tyro's box of errors, with the first flag that tyro suggests, on one line."""
    text = re.sub("[╭╮╰╯│]", "", box)
    _title, *parts = (" ".join(part.split()) for part in re.split("[─-]{3,}", text))  # -: on terminals without Unicode
    first = re.sub(r"(?<=one of )\('.*'\)", _in_order, next(part for part in parts if part).rstrip("."))
    suggested = re.findall(r"(?<=\s)--[\w.-]+", text.partition("Perhaps you meant:")[2])
    if not suggested:
        return first
    written = re.findall(r"--[\w.-]+", first)
    completed = [flag for flag in suggested if written and flag.startswith(written[0])]
    return f"{first}; did you mean {min(completed, key=len, default=suggested[0])}?"


def _in_order(choices: re.Match[str]) -> str:
    """Choices such as "('b', 'a')" in alphabetical order: tyro lists those of an optional setting in random order."""
    return f"({', '.join(sorted(choices[0].strip('()').split(', '), key=str.lower))})"
