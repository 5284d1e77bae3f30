"""What commands print: errors on stderr, and the result of a report."""

from __future__ import annotations

import os
import re
import sys
import time
import typing
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from kdaug.config import Recipe
from kdaug.errors import InputError


def rank() -> int:
    """The rank of this process under torchrun; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def print_error(error: InputError | str, flags: Mapping[str, str] | None = None, wait: bool = True) -> None:
    """Prints one line on stderr, with flags for the settings that `error.hint` names. See `settings_as_flags`.

    wait: ranks above 0 wait first. Most errors are the same in all processes, and torchrun stops the others as soon as
    rank 0 has failed, so that the line is printed once.
    """
    text = str(error)
    if isinstance(error, InputError) and error.hint:
        text = f"{error.problem}; {settings_as_flags(error.hint, flags or {})}"
    if rank() > 0:
        time.sleep(2 if wait else 0)
        text = f"process {rank()}: {text}"
    print(f"kdaug: {text}", file=sys.stderr, flush=True)


def settings_as_flags(text: str, flags: Mapping[str, str]) -> str:
    """`text` with a flag for each setting in it: run.resume becomes --run.resume.

    flags: setting to flag, for settings that a command has under another name. An assignment (views.magnitude=0,1) is
    left unchanged.
    """
    names = [
        f"{part}.{setting.name}" for part, kind in typing.get_type_hints(Recipe).items() for setting in fields(kind)
    ]
    pattern = rf"(?<![\w./-])({'|'.join(map(re.escape, names))})(?![\w=])"
    return re.sub(pattern, lambda match: flags.get(match[0], f"--{match[0].replace('_', '-')}"), text)


def print_report(table: str, left_out: Iterable[str], directory: Path) -> None:
    """Prints the table of a report written to `directory`, and each run that was left out."""
    print(table, end="")
    for reason in left_out:
        print_error(f"left out: {reason}")
    print(f"report written to {directory}: open {directory}/index.html")


def check_output_file(flag: str, path: Path) -> None:
    """Raises InputError if the file that `flag` names could not be written later, after long work."""
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"{flag} {path} is not a file in an existing folder", "choose another one")


def check_output_folder(flag: str, folder: str) -> None:
    """Raises InputError if the folder that `flag` names is empty text, or could not be written to after long work."""
    from kdaug.storage import check_writable_folder  # fails without fcntl, which main() reports in one line

    if not folder:
        raise InputError(f"{flag} is empty", "give a folder, or leave it out")
    check_writable_folder(Path(folder))


def percent(value: float | None) -> str:
    """`value` with two decimals and a percent sign; empty if None."""
    return "" if value is None else f"{value:.2f} %"
