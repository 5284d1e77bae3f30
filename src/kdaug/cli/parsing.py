"""Parsing with tyro: one flag per field of a dataclass, with its docstring as help and one-line errors."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from typing import Any, TypeVar

import tyro

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
        with contextlib.redirect_stderr(stderr):
            parsed: T = tyro.cli(kind, args=arguments, prog=program, config=(tyro.conf.AvoidSubcommands,), **options)
            return parsed
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_first_error(stderr.getvalue())} ({program} --help lists all settings)") from None


def _first_error(box: str) -> str:
    """The first error in tyro's box of errors, with the first flag that tyro suggests, on one line."""
    text = re.sub("[╭╮╰╯│]", "", box)
    _title, *parts = (" ".join(part.split()) for part in re.split("[─-]{3,}", text))  # -: on terminals without Unicode
    first = next(part for part in parts if part).rstrip(".")
    suggested = re.findall(r"(?<=\s)--[\w.-]+", text.partition("Perhaps you meant:")[2])
    if not suggested:
        return first
    written = re.findall(r"--[\w.-]+", first)
    completed = [flag for flag in suggested if written and flag.startswith(written[0])]
    return f"{first}; did you mean {min(completed, key=len, default=suggested[0])}?"
