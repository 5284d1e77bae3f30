"""Contenders: the implementations that a benchmark compares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from harness.progress import print_progress
from harness.report import ContenderRecord

Workload = TypeVar("Workload")
Timed = TypeVar("Timed")


@dataclass(frozen=True)
class Contender(Generic[Workload, Timed]):
    """One implementation.

    name: its key in the JSON file. label, differs: its table row and its description in the Markdown. make: prepares it
    for a workload and returns what is timed; raises ImportError if a package is not installed.
    """

    name: str
    label: str
    differs: str
    make: Callable[[Workload], Timed]


def make_installed(
    contenders: Sequence[Contender[Workload, Timed]], workload: Workload, missing: dict[str, str]
) -> dict[str, Timed]:
    """What `make` returns for each contender, by name; `missing` gets the reason if a package is not installed."""
    made = {}
    for contender in contenders:
        try:
            made[contender.name] = contender.make(workload)
        except ImportError as error:
            missing[contender.name] = str(error).partition("\n")[0]
            print_progress(f"{contender.label} is missing: {missing[contender.name]}")
    return made


def contender_records(
    contenders: Sequence[Contender[Any, Any]], missing: Mapping[str, str | None]
) -> list[ContenderRecord]:
    return [ContenderRecord(one.name, one.label, one.differs, missing.get(one.name)) for one in contenders]


def update_text(records: Sequence[ContenderRecord], contenders: Sequence[Contender[Any, Any]]) -> list[ContenderRecord]:
    """Records read from a file, with the labels and descriptions of this version of the script."""
    known = {one.name: one for one in contenders}
    return [
        replace(record, label=known[record.name].label, differs=known[record.name].differs)
        if record.name in known
        else record
        for record in records
    ]
