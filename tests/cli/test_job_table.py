"""The live table of sweep and reproduce."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdaug.cli.job_table import JobsTable
from kdaug.config import Optimization, Recipe, to_yaml
from kdaug.study.sweep import Job, JobStatus


@pytest.fixture
def status(tmp_path: Path) -> JobStatus:
    """The status of a run of 8 epochs that has started."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(to_yaml(Recipe(optimization=Optimization(epochs=8))))
    return JobStatus(Job("run", run, ("train", "recipe.yaml")), "running")


def add(status: JobStatus, kind: str, epoch: int, **metrics: Any) -> None:
    with open(status.job.path / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"kind": kind, "step": epoch, "epoch": epoch, **metrics}) + "\n")


def row(table: JobsTable, status: JobStatus) -> list[str]:
    """The row of the run."""
    out = Console(file=io.StringIO(), width=120)
    out.print(table._table([status]))
    return out.file.getvalue().splitlines()[-1].split()  # type: ignore[attr-defined]


def test_only_new_lines_of_the_log_are_read(status: JobStatus) -> None:
    table, log = JobsTable(), status.job.path / "metrics.jsonl"
    assert row(table, status) == ["run", "running", "0/8"]
    for epoch in (0, 1):
        add(status, "step", epoch)
    assert row(table, status) == ["run", "running", "1/8"]
    add(status, "eval", 1, top1_error=20.0)
    add(status, "eval", 2, top1_error=30.0)
    with open(log, "a") as opened:
        opened.write('{"kind": "step", "epoch": 7')  # not complete yet
    assert row(table, status) == ["run", "running", "3/8", "30.00", "%", "20.00", "%"]
    before = log.read_bytes()
    log.write_bytes(b"x" * len(before))  # the part that was read
    with open(log, "r+b") as opened:
        opened.seek(before.rfind(b"\n") + 1)
        opened.write(b'{"kind": "step", "step": 9, "epoch": 7}\n')
    assert row(table, status) == ["run", "running", "7/8", "30.00", "%", "20.00", "%"]


def test_a_log_cut_back_to_a_checkpoint_is_read_again(status: JobStatus) -> None:
    table, log = JobsTable(), status.job.path / "metrics.jsonl"
    for epoch in range(5):
        add(status, "eval", epoch, top1_error=10.0 - epoch)
    assert row(table, status)[2:] == ["5/8", "6.00", "%", "6.00", "%"]
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    assert row(table, status)[2:] == ["2/8", "9.00", "%", "9.00", "%"]
    add(status, "end", 7)
    assert row(table, status)[2] == "8/8"


def test_damaged_lines_are_ignored(status: JobStatus) -> None:
    (status.job.path / "metrics.jsonl").write_text('null\n{"kind": "eval"}\nx\n')
    assert row(JobsTable(), status) == ["run", "running", "0/8"]
