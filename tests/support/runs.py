"""Reading and comparing run directories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def read_lines(run: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, all or those of one kind. Each must be strict JSON, which has no NaN."""
    text = (run / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    return [line for line in lines if kind in (None, line["kind"])]


def step_numbers(run: Path) -> list[int]:
    """The steps in the metrics of a run that may still be training; a line being written is left out."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines()[: text.count("\n")]]
    return [line["step"] for line in lines if line["kind"] == "step"]


def losses(run: Path) -> list[float]:
    """The loss of each step."""
    return [line["loss"] for line in read_lines(run, "step")]


def without_seconds(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of metrics without the only figure that differs between equal runs."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def weight_bytes(run: Path, name: str = "last") -> bytes:
    """The content of a run's weight file, "last" or "best"."""
    return (run / f"{name}.safetensors").read_bytes()


def assert_same_run(run: Path, reference: Path) -> None:
    """Fails unless two finished runs have the same metrics, except for the seconds, and the same weights."""
    assert without_seconds(read_lines(run)) == without_seconds(read_lines(reference))
    for name in ("last", "best"):
        assert weight_bytes(run, name) == weight_bytes(reference, name)
    assert not [path for path in run.rglob("*") if path.name.endswith(".part")]


def folder_content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """The bytes and the modification time of every file below `folder`, by path."""
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in sorted(folder.rglob("*")) if p.is_file()}


def store_content(folder: Path) -> dict[str, bytes]:
    """The files of a label store, by name; of recipe.yaml only the name, as it contains run.dir."""
    return {path.name: b"" if path.name == "recipe.yaml" else path.read_bytes() for path in folder.iterdir()}
