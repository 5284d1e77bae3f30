"""The runs of a sweep: every combination of values of some settings, or one run per line of a file."""

from __future__ import annotations

import hashlib
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from kdaug.config import parse_plain_yaml
from kdaug.errors import InputError

Settings = Mapping[str, Any]
"""Values of recipe settings by dotted name, of the types that YAML gives them."""

_MAX_NAME_LENGTH = 150


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


def read_run_list(path: Path) -> list[Settings]:
    """The runs in a text file, one per line, such as `views.magnitude=5 run.seed=1`. # starts a comment.

    Raises InputError for a file that cannot be read or has no runs, and for a line that is not one run.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"list of runs {path} cannot be read: {reason}") from None
    runs = list[Settings]()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            axes = shlex.split(line, comments=True)
            if axes:
                (run,) = expand_grid(axes)
                runs.append(run)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error.problem}", error.hint) from None
        except ValueError:
            raise InputError(f"{path}, line {number}: must be one run, such as views.magnitude=5 run.seed=1") from None
    if not runs:
        raise InputError(f"list of runs {path} is empty")
    return runs


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
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"two runs have the name {name}", "list each run once")
    return names
