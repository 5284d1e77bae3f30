"""failed.json: the failed jobs of a sweep, kept in its folder so that later calls skip and report them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kdaug.errors import InputError
from kdaug.storage import atomic_write

_FILE_NAME = "failed.json"


def read_failures(folder: Path) -> dict[str, str]:
    """The reason for each failure in the sweep at `folder`, by job name. Empty if there is no failed.json.

    Raises InputError if the file is damaged.
    """
    file = folder / _FILE_NAME
    if not file.is_file():
        return {}
    try:
        failures = json.loads(file.read_bytes())
    except ValueError:
        failures = None
    if not isinstance(failures, dict) or not all(isinstance(reason, str) for reason in failures.values()):
        raise InputError(f"{file} is damaged", "delete it to run failed jobs again")
    return failures


def write_failures(folder: Path, failures: Mapping[str, str]) -> None:
    """Writes failed.json, unless it has this content already."""
    file, text = folder / _FILE_NAME, json.dumps(failures, indent=1) + "\n"
    if not file.is_file() or file.read_text() != text:
        atomic_write(file, text)
