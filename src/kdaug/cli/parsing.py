"""tyro at the edge: one flag per setting, its docstring the help, and errors in one line like all others."""

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
    """A `kind` (dataclass) from the command line's `arguments`; `options` go to tyro.cli.

    `--help` prints tyro's help and exits. Raises InputError for arguments that do not fit.
    """
    said = io.StringIO()
    # tyro joins lines, except before one that does not begin with a letter
    options = {"description": re.sub(r"^(?=kdaug )", "  ", inspect.getdoc(kind) or "", flags=re.MULTILINE), **options}
    arguments = [re.sub(r"^--no-([\w-]+)\.", r"--\1.no-", given) for given in arguments]  # --run.no-resume to tyro
    try:
        with contextlib.redirect_stderr(said):
            given: T = tyro.cli(kind, args=arguments, prog=program, config=(tyro.conf.AvoidSubcommands,), **options)
            return given
    except SystemExit as stop:
        if not stop.code:
            raise
        raise InputError(f"{_in_one_line(said.getvalue())} ({program} --help lists all settings)") from None


def _in_one_line(box: str) -> str:
    """What tyro's error box says: its first part, and the first flag that it suggests."""
    text = re.sub("[╭╮╰╯│]", "", box)
    _title, *parts = (" ".join(part.split()) for part in re.split("[─-]{3,}", text))  # -: where there is no Unicode
    first = next(part for part in parts if part).rstrip(".")
    suggested = re.findall(r"(?<=\s)--[\w.-]+", text.partition("Perhaps you meant:")[2])
    if not suggested:
        return first
    written = re.findall(r"--[\w.-]+", first)
    completed = [flag for flag in suggested if written and flag.startswith(written[0])]
    return f"{first}; did you mean {min(completed, key=len, default=suggested[0])}?"
