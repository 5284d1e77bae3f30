"""Which runs a sweep is of: every combination of some settings' values, or one run for each line of a file."""

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
"""Values of a recipe's settings by dotted name, as YAML would have them."""

_LONGEST_NAME = 150


def grid(axes: Sequence[str]) -> list[Settings]:
    """Every combination of the values in `axes`, each as views.magnitude=0,1,2 or run.seed=0..2; the last varies first.

    Values are read as YAML, so that 'a,b' in quotes is one and [1, 2] is a list; None is none. No axes: one run,
    unchanged. Raises InputError for what cannot be read, no value, or a setting that is given twice.
    """
    values = dict[str, list[Any]]()
    for axis in axes:
        name, given = parse_axis(axis)
        if name in values:
            raise InputError(f"{name} is given twice; give all its values together, as {name}=1,2")
        values[name] = given
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """The setting's name and its values; InputError if it is not like views.magnitude=0,1,2."""
    name, equals, given = text.partition("=")
    if not (equals and given and re.fullmatch(r"\w+\.\w+", name.replace("-", "_"))):
        raise InputError(f"{text!r} is not like views.magnitude=0,1,2")
    try:
        values = parse_plain_yaml(f"[{given}]")
    except (yaml.YAMLError, ValueError):
        raise InputError(f"{text!r} cannot be read; put a value with brackets or commas in quotes") from None
    spread = [each for value in values for each in _spread(value)]
    if len({repr(value) for value in spread}) < len(spread):
        raise InputError(f"{text!r} has a value twice")
    return name.replace("-", "_"), spread


def _spread(value: Any) -> list[Any]:
    """0..2 is 0, 1, 2; None is none, as on the command line; anything else is itself."""
    ends = re.fullmatch(r"(\d+)\.\.(\d+)", value) if isinstance(value, str) else None
    if ends is None:
        return [None if value == "None" else value]
    first, last = int(ends[1]), int(ends[2])
    if last < first:
        raise InputError(f"{value} has no value, its end comes before its beginning")
    return list(range(first, last + 1))


def read_run_list(path: Path) -> list[Settings]:
    """The runs of a list file: one a line, as `views.magnitude=5 run.seed=1`; what follows a # is not read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"list of runs {path} cannot be read: {reason}") from None
    runs = list[Settings]()
    for number, line in enumerate(text.splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
            if words:
                (run,) = grid(words)
                runs.append(run)
        except InputError as error:
            raise InputError(f"{path}, line {number}: {error}") from None
        except ValueError:
            raise InputError(f"{path}, line {number}: must be one run, as views.magnitude=5 run.seed=1") from None
    if not runs:
        raise InputError(f"list of runs {path} is empty")
    return runs


def run_names(runs: Sequence[Settings]) -> list[str]:
    """A name for each run, fit for a file: magnitude=5_seed=1. InputError if two are the same."""
    known = list(dict.fromkeys(name for run in runs for name in run))
    lasts = [name.partition(".")[2] for name in known]
    short = {name: last if lasts.count(last) == 1 else name for name, last in zip(known, lasts, strict=True)}
    names = ["_".join(f"{short[name]}={_in_file_name(run[name])}" for name in run) or "run" for run in runs]
    names = [name if len(name) <= _LONGEST_NAME else _shortened(name) for name in names]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"two runs would both be called {name}; give each run once")
    return names


def _in_file_name(value: Any) -> str:
    return re.sub(r"[^\w.@+-]+", "-", str(value))


def _shortened(name: str) -> str:
    return f"{name[:_LONGEST_NAME]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
