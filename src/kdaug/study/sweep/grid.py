"""The runs of a sweep: every combination of values of some settings, or one run per line of a file."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kdaug.config import parse_plain_yaml
from kdaug.errors import InputError

Settings = Mapping[str, Any]
"""Values of recipe settings by dotted name, of the types that YAML gives them."""

_MAX_NAME_LENGTH = 150
_FILE_NAME = re.compile(r"[\w@+-][\w.@+-]*")
_FILES_OF_SWEEP = ("failed.json", "labels", "logs", "recipes", "teachers")


def expand_grid(axes: Sequence[str]) -> list[Settings]:
    """Every combination of the values in `axes`, such as "views.magnitude=0,1,2" or "run.seed=0..2".

    The last axis varies fastest. Without axes the result is one run without changes. Values are YAML: quotes allow a
    comma in a value, brackets make a list, None is null. Raises InputError for text that is not an axis, for an empty
    range, and for a value or setting that appears twice.
    """
    values = dict[str, list[Any]]()
    for axis in axes:
        name, axis_values = parse_axis(axis)
        if name in values:
            raise InputError(f"{name} is given twice", "write all its values in one list, separated by commas")
        values[name] = axis_values
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """Name and values of the setting in "views.magnitude=0,1,2". Raises InputError for any other text."""
    name, equals, values_text = text.partition("=")
    if not (equals and values_text and re.fullmatch(r"\w+\.\w+", name.replace("-", "_"))):
        raise InputError(f"{text!r} is not a setting with values, such as views.magnitude=0,1,2")
    try:
        items = parse_plain_yaml(f"[{values_text}]")
    except (yaml.YAMLError, ValueError):
        raise InputError(f"{text!r} cannot be read", "put values with brackets or commas in quotes") from None
    values = [value for item in items for value in _expand_range(item)]
    if len({repr(value) for value in values}) < len(values):
        raise InputError(f"{text!r} has a value twice")
    return name.replace("-", "_"), values


def _expand_range(value: Any) -> list[Any]:
    """[0, 1, 2] for "0..2", [None] for "None", and [value] for any other value."""
    match = re.fullmatch(r"(\d+)\.\.(\d+)", value) if isinstance(value, str) else None
    if match is None:
        return [None if value == "None" else value]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise InputError(f"the range {value} is empty: its end is less than its start")
    return list(range(first, last + 1))


def read_run_list(path: Path) -> dict[str, Settings]:
    """The runs in a text file by their name, one per line, such as `views.magnitude=5 run.seed=1`. # starts a comment.

    A line may begin with a name, as in `strong: views.magnitude=9`; with the name alone it is a run without changes.
    The others have the names of `run_names`. Raises InputError for a file that cannot be read or has no runs, for a
    line that is not one run, and for a name that is no file name, that the sweep uses itself, or that two runs have.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"list of runs {path} cannot be read: {reason}") from None
    runs = list[tuple[str | None, Settings]]()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
            if words:
                name = _checked_name(words.pop(0)[:-1]) if words[0].endswith(":") else None
                (run,) = expand_grid(words)
                runs.append((name, run))
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error.problem}", error.hint) from None
        except ValueError:
            raise InputError(
                f"{path}, line {number}: must be one run, such as views.magnitude=5 run.seed=1",
                "put a value with commas in two pairs of quotes, as in 'teacher.source=\"run:A,run:B\"'",
            ) from None
    if not runs:
        raise InputError(f"list of runs {path} is empty")
    other_names = iter(run_names([run for name, run in runs if name is None]))
    named = [(name or next(other_names), run) for name, run in runs]
    _check_unique(name for name, _ in named)
    return dict(named)


def _checked_name(name: str) -> str:
    if name in _FILES_OF_SWEEP or name.startswith(("teacher-", "labels-")):
        raise InputError(f"a run cannot have the name {name}, which the sweep itself uses", "choose another name")
    if not _FILE_NAME.fullmatch(name) or len(name) > _MAX_NAME_LENGTH:
        raise InputError(
            f"{name!r} cannot be the name of a run",
            f"a name is up to {_MAX_NAME_LENGTH} letters, digits and any of _ . @ + -",
        )
    return name


def run_names(runs: Sequence[Settings]) -> list[str]:
    """A file name for each run, such as "magnitude=5_seed=1". Raises InputError if two are the same."""
    settings = list(dict.fromkeys(name for run in runs for name in run))
    fields = [name.partition(".")[2] for name in settings]
    short = {name: field if fields.count(field) == 1 else name for name, field in zip(settings, fields, strict=True)}
    names = []
    for run in runs:
        values = {short[name]: re.sub(r"[^\w.@+-]+", "-", str(value)) for name, value in run.items()}
        name = "_".join(f"{key}={value}" for key, value in values.items()) or "run"
        if len(name) > _MAX_NAME_LENGTH:
            name = f"{name[:_MAX_NAME_LENGTH]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        names.append(name)
    _check_unique(names)
    return names


def _check_unique(names: Iterable[str]) -> None:
    repeated = next((name for name, count in Counter(names).items() if count > 1), None)
    if repeated is not None:
        raise InputError(f"two runs have the name {repeated}", "list each run once, with a name of its own")
