"""The live table follows a run by what its log has grown by."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kdaug.cli.jobs import JobsTable
from kdaug.config import to_yaml
from kdaug.recipes import RECIPES
from kdaug.study import Job, Standing


@pytest.fixture
def standing(tmp_path: Path) -> Standing:
    """Of a run of 8 epochs that has begun."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(to_yaml(RECIPES["demo"].make()))
    return Standing(Job("run", run, ("train", "recipe.yaml")), "running")


def add(standing: Standing, kind: str, epoch: int, **figures: Any) -> None:
    with open(standing.job.place / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"kind": kind, "step": epoch, "epoch": epoch, **figures}) + "\n")


def shown(table: JobsTable, standing: Standing) -> list[str]:
    """The row of the run."""
    out = Console(file=io.StringIO(), width=120)
    out.print(table._table([standing]))
    return out.file.getvalue().splitlines()[-1].split()  # type: ignore[attr-defined]


def test_what_is_added_to_the_log_is_shown_and_the_rest_not_read_again(standing: Standing) -> None:
    table, log = JobsTable(), standing.job.place / "metrics.jsonl"
    assert shown(table, standing) == ["run", "running", "0/8"]
    for epoch in (0, 1):
        add(standing, "step", epoch)
    assert shown(table, standing) == ["run", "running", "1/8"]
    add(standing, "eval", 1, top1_error=20.0)
    add(standing, "eval", 2, top1_error=30.0)
    with open(log, "a") as opened:
        opened.write('{"kind": "step", "epoch": 7')  # not yet whole
    assert shown(table, standing) == ["run", "running", "3/8", "30.00", "%", "20.00", "%"]
    before = log.read_bytes()
    log.write_bytes(b"x" * len(before))  # what was read is not read again
    with open(log, "r+b") as opened:
        opened.seek(before.rfind(b"\n") + 1)
        opened.write(b'{"kind": "step", "step": 9, "epoch": 7}\n')
    assert shown(table, standing) == ["run", "running", "7/8", "30.00", "%", "20.00", "%"]


def test_a_run_that_went_back_to_a_checkpoint_is_read_anew(standing: Standing) -> None:
    table, log = JobsTable(), standing.job.place / "metrics.jsonl"
    for epoch in range(5):
        add(standing, "eval", epoch, top1_error=10.0 - epoch)
    assert shown(table, standing)[2:] == ["5/8", "6.00", "%", "6.00", "%"]
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    assert shown(table, standing)[2:] == ["2/8", "9.00", "%", "9.00", "%"]
    add(standing, "end", 7)
    assert shown(table, standing)[2] == "8/8"


def test_a_damaged_line_harms_no_table(standing: Standing) -> None:
    (standing.job.place / "metrics.jsonl").write_text('null\n{"kind": "eval"}\nx\n')
    assert shown(JobsTable(), standing) == ["run", "running", "0/8"]
