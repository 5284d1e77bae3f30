"""The results of a benchmark as dataclasses that are written to JSON and read back. Their field names are the keys."""

from __future__ import annotations

import json
import types
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, Self, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Machine:
    """The machine and the software that a benchmark ran on."""

    processor: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    commit: str
    date: str


@dataclass(frozen=True)
class ContenderRecord:
    """A contender and how it differs from the others. `missing` is the reason why it did not run."""

    name: str
    label: str
    differs: str
    missing: str | None = None


@dataclass(frozen=True)
class Target:
    """A target and the measured value. None: not measured."""

    what: str
    wanted: str
    measured: float | None
    met: bool | None


@dataclass(kw_only=True)
class Report:
    """What all reports contain. `load` is the load average of the last minute, at the start and at the end."""

    machine: Machine
    load: list[float] = field(default_factory=list)
    entrants: list[ContenderRecord] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        report: Self = read_record(cls, json.loads(path.read_text(encoding="utf-8")))
        return report


def write_json(path: Path, content: object) -> None:
    """Writes a report; creates the folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_record(kind: Any, value: Any) -> Any:
    """Converts `value` from JSON to the type `kind`: a dataclass, a list, an optional type or a plain value."""
    if isinstance(kind, type) and is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: read_record(kinds[name], part) for name, part in value.items()})
    if get_origin(kind) is list:
        return [read_record(get_args(kind)[0], part) for part in value]
    if get_origin(kind) is types.UnionType and value is not None:
        return read_record(get_args(kind)[0], value)
    return value
