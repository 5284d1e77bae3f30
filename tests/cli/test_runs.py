"""kdaug runs: state, epochs and errors of every run, and the command that resumes it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kdaug.runs.status import find_runs, run_status


@pytest.fixture
def stopped(demo_run: Path, tmp_path: Path) -> Path:
    """A run stopped in its second epoch, in a directory whose name needs quoting in a shell."""
    run = tmp_path / "runs" / "two words [bold]"
    shutil.copytree(demo_run, run)
    (run / "last.safetensors").unlink()
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= 5]
    (run / "metrics.jsonl").write_text("".join(kept))
    for checkpoint in list((run / "checkpoints").iterdir()):
        if checkpoint.name > "step-00000005":
            shutil.rmtree(checkpoint)
    return run


def test_every_run_is_listed_with_state_and_errors(kdaug: Callable, demo_run: Path) -> None:
    result = kdaug("runs", demo_run.parent, "--json")
    assert (result.code, result.err) == (0, "")
    listed = {Path(line["path"]): line for line in map(json.loads, result.out.splitlines())}
    (teacher,) = (demo_run.parent / "teachers").iterdir()
    assert set(listed) == {demo_run, teacher}
    errors = [
        line["top1_error"]
        for line in map(json.loads, (demo_run / "metrics.jsonl").read_text().splitlines())
        if line["kind"] == "eval"
    ]
    assert listed[demo_run] == {
        "path": str(demo_run),
        "state": "finished",
        "student": "wide_resnet10_1",
        "policy": "randaugment-n2-m3@paper-geometric",
        "epochs_done": 2,
        "epochs": 2,
        "error": errors[-1],
        "best": min(errors),
        "next": f"kdaug eval {demo_run}",
    }


def test_a_stopped_run_is_listed_with_its_resume_command(kdaug: Callable, stopped: Path) -> None:
    result = kdaug("runs", stopped.parent)
    table, last = result.out.rsplit("\n", 2)[:2]
    assert str(stopped) in table
    assert "stopped" in table
    assert "1/2" in table
    program, *arguments = shlex.split(last.removeprefix("resume: "))
    assert (program, arguments) == ("kdaug", ["train", str(stopped), "--run.resume"])


def test_a_locked_run_is_in_training(stopped: Path) -> None:
    hold = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.lockf(lock, fcntl.LOCK_EX); print(1, flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", hold, str(stopped / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        assert run_status(stopped).state == "training"
        process.stdin.close()
    assert run_status(stopped).state == "stopped"


# The second line has no error. The third follows because a crash may cut the last line short.
ODD = "".join(f'{{"kind": "{kind}", "step": 3, "epoch": 0}}\n' for kind in ("step", "eval", "step"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("recipe.yaml", "run: {dri: x}"), ("metrics.jsonl", "5\n5\n"), ("metrics.jsonl", ODD)],
)
def test_a_damaged_run_is_listed_with_the_problem(kdaug: Callable, stopped: Path, name: str, content: str) -> None:
    (stopped / name).write_text(content)
    result = kdaug("runs", stopped.parent)
    assert result.code == 0
    assert "damaged" in result.out
    assert str(stopped / name) in result.out.splitlines()[-1]


@pytest.mark.parametrize("lost", ["checkpoints", "metrics.jsonl"])
def test_a_run_that_cannot_be_resumed_is_listed_as_damaged(kdaug: Callable, stopped: Path, lost: str) -> None:
    (stopped / "checkpoints" / "step-00000004").mkdir(exist_ok=True)
    if lost == "checkpoints":
        shutil.rmtree(stopped / lost)
    else:
        (stopped / lost).unlink()
    result = kdaug("runs", stopped)
    assert "damaged: " in result.out
    assert lost in result.out
    assert "resume: " not in result.out


def test_a_folder_without_runs_and_a_missing_one(kdaug: Callable, tmp_path: Path) -> None:
    result = kdaug("runs", tmp_path)
    assert (result.code, result.out) == (0, f"no runs below {tmp_path}\n")
    result = kdaug("runs", tmp_path / "missing")
    assert result.code == 2
    assert result.err.startswith(f"kdaug: folder {tmp_path}/missing does not exist")


def test_listing_changes_no_files(stopped: Path) -> None:
    def content() -> dict[str, tuple[bytes, int]]:
        files = [Path(place, name) for place, _, names in os.walk(stopped) for name in names]
        return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = content()
    list(find_runs(stopped.parent))
    assert content() == before
