"""kdaug sweep: real runs in processes of their own, skipped, resumed, retried; what is wrong is one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdaug.storage.lock import is_locked
from kdaug.training import RunDirectory, read_metrics


def test_a_sweep_trains_what_it_can_and_tells_what_failed(tiny: list[str], kdaug: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = ("sweep", "demo", "optimization.global_batch=64,9999", "--dir", folder, *tiny, "--teacher.source", "none")
    message = kdaug(*command)
    assert message.code == 1
    assert (
        "global_batch=9999 failed: optimization.global_batch is 9999, but there are 256 training images" in message.err
    )
    assert "[1/2] global_batch=64: finished, error " in message.out
    run = RunDirectory(folder / "global_batch=64")
    assert run.finished
    before = run.metrics.read_bytes()
    again = kdaug(*command)
    assert again.code == 1
    assert "is tried again with --retry" in again.err
    assert "running" not in again.out
    assert run.metrics.read_bytes() == before
    assert kdaug("runs", folder).out.count("finished") == 1


def test_two_runs_share_a_teacher_and_its_labels_and_learn_as_they_would_alone(
    tiny: list[str], kdaug: Callable, tmp_path: Path
) -> None:
    flags = [*tiny, "--teacher.epochs", "1"]
    assert kdaug("sweep", "demo", "supervision.weight=1,2", "--dir", tmp_path / "s", *flags, "--jobs", "2").code == 0
    (store,) = (tmp_path / "s/labels").iterdir()
    (teacher,) = (tmp_path / "s/teachers").iterdir()
    alone = kdaug("train", "demo", *flags, "--supervision.weight", "2", "--run.dir", tmp_path / "s/alone")
    assert alone.code == 0, alone.err
    assert list((tmp_path / "s/teachers").iterdir()) == [teacher]
    weights = [(tmp_path / "s" / name / "last.safetensors").read_bytes() for name in ("weight=2", "alone", "weight=1")]
    assert weights[0] == weights[1] != weights[2]
    assert str(store) in (tmp_path / "s/weight=2/recipe.yaml").read_text()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_stopped_a_sweep_leaves_checkpoints_from_which_the_same_command_goes_on(
    tiny: list[str], tmp_path: Path, sent: signal.Signals
) -> None:
    folder = tmp_path / "sweep"
    flags = [*tiny, "--optimization.epochs", "200", "--run.evaluate-every", "100", "--teacher.source", "none"]
    command = [sys.executable, "-m", "kdaug", "sweep", "demo", "run.seed=0,1", "--dir", str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    run = folder / "seed=0"
    deadline = time.monotonic() + 120
    while not read_metrics(run) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, sent)
    assert process.wait(60) == 130
    assert process.stderr is not None
    message = process.stderr.read()
    assert b"Traceback" not in message
    assert b"the same command again goes on" in message
    assert not is_locked(run), "nothing trains on"
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert int(checkpoint.name.removeprefix("step-")) == read_metrics(run)[-1]["step"] > 0
    assert not (folder / "seed=1").exists()
    assert json.loads((folder / "failed.json").read_text()) == {}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("sweep", "which recipe?"),
        ("sweep demo", "what is to vary?"),
        ("sweep demo run.seed=0 --list x", "not both"),
        ("sweep demo --list {tmp}/no", "cannot be read: No such file"),
        ("sweep demo run.seeed=0", "run seeed=0: run.seeed is not a setting; did you mean run.seed?"),
        ("sweep demo run.seed=x", "run seed=x: run.seed must be a whole number, not 'x' (str)"),
        ("sweep demo supervision.weight=-1", "supervision.weight is -1"),
        ("sweep demo run.seed=0 --jobs 0", "--jobs is 0"),
        ("sweep demo run.seed=0 --run.dir {tmp}/r", "give the folder of all with --dir"),
        ("sweep demo --dir {tmp}/s run.seed=0", "come before all flags; run.seed=0 comes after --dir"),
        ("sweep demo run.dir=a,b", "run.dir is not to vary"),
        ("sweep demo views.magnitude=1,1.0", "runs magnitude=1 and magnitude=1.0 are the same; give each once"),
        ("sweep --dir {tmp}/s demo", "the recipe comes first"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing_behind(
    command: str, says: str, kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    message = kdaug(*command.format(tmp=tmp_path).split())
    assert message.code == 2, message.err
    assert says in message.err
    assert message.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_interrupted_from_elsewhere_is_no_success(tiny: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    flags = [*tiny, "--optimization.epochs", "200", "--run.evaluate-every", "100", "--teacher.source", "none"]
    command = [sys.executable, "-m", "kdaug", "sweep", "demo", "run.seed=0", "--dir", str(folder), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not read_metrics(folder / "seed=0") and time.monotonic() < deadline:
        time.sleep(0.1)
    (child,) = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    os.kill(child, signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "0 of 1 done" in out
    assert "seed=0 stopped: interrupted" in err
