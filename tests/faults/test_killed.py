"""kill -9 at any moment, again and again, also while something is written: it ends as if it had not been."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WRITING = {"weights": "weights.safetensors.*.part", "state": "state.pt.*.part", "sums": "sha256.json"}
"""What lies in a checkpoint that is being written: first its weights, then the state, last the sums of both."""


def caught_writing(command: Any, run: Path, file: str, after: int) -> int:
    """Freezes the command while `file` lies in the unfinished checkpoint of a step after `after`, which is returned."""

    def writing() -> int:
        for path in (run / "checkpoints").glob(f".step-*.part/{file}"):
            step = int(re.findall(r"\d+", path.parent.name)[0])
            if step > after:
                command.signal(signal.SIGSTOP)
                if path.exists():
                    return step
                command.signal(signal.SIGCONT)  # too late, but there is a next one
        return 0

    command.wait_until((run / "metrics.jsonl").exists)
    return command.wait_until(writing, every=0.0002)


def test_killed_while_checkpoints_are_written_a_run_ends_as_if_it_had_not_been(
    started: Callable,
    kdaug: Callable,
    short: list[str],
    tmp_path: Path,
    uninterrupted_short: Path,
    assert_same_run: Any,
) -> None:
    """Again and again: each time the run goes on from the checkpoint before the one that was cut short."""
    run, caught = tmp_path / "run", [0]
    for file in WRITING.values():
        with started(*short, "--run.resume", "--run.dir", run) as command:
            caught.append(caught_writing(command, run, file, after=caught[-1] + 1))
            command.signal(signal.SIGKILL)
            said = command.end()
        assert said.code == -signal.SIGKILL
        assert list((run / "checkpoints" / f".step-{caught[-1]:08}.part").glob(file))
        assert caught[-2] == 0 or f"continuing at step {caught[-2] - 1} of 16" in said.out
        assert "damaged" not in said.out
        assert said.err == ""
    said = kdaug(*short, "--run.resume", "--run.dir", run)
    assert (said.code, said.err) == (0, "")
    assert f"continuing at step {caught[-1] - 1} of 16" in said.out
    assert_same_run(run, uninterrupted_short)


def test_killed_amid_an_epoch_a_labelling_ends_as_if_it_had_not_been(
    started: Callable, kdaug: Callable, uninterrupted_short: Path, tmp_path: Path
) -> None:
    label = (
        *("label demo --data.train-images 256 --optimization.epochs 400 --run.device cpu --run.threads 1").split(),
        *("--teacher.source", f"run:{uninterrupted_short}"),
    )
    store = tmp_path / "store"
    finished: dict[str, tuple[int, bytes]] = {}
    for wanted in (3, 8):
        with started(*label, "--epochs", "0:12", "--out", store) as command:
            command.wait_until(lambda: len(list(store.glob("epoch-*.safetensors"))) >= wanted)  # noqa: B023
            command.signal(signal.SIGKILL)
            assert command.end().code == -signal.SIGKILL
        left = {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in store.glob("epoch-*.safetensors")}
        assert wanted <= len(left) < 12
        assert finished.items() <= left.items(), "what was written is not written again"
        finished = left
    said = kdaug(
        "train",
        "demo",
        "--data.train-images",
        "256",
        "--teacher.labels",
        store,
        "--optimization.epochs",
        "12",
        "--run.dir",
        tmp_path / "run",
    )
    assert said.code == 2
    assert "is needed, but epoch-" in said.err
    assert kdaug(*label, "--epochs", "0:12", "--out", store).code == 0
    assert kdaug(*label, "--epochs", "0:12", "--out", tmp_path / "whole").code == 0
    ours, theirs = (
        {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
        for folder in (store, tmp_path / "whole")
    )
    assert len(ours) == 13
    assert ours == theirs


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_random_moments_a_run_ends_as_if_it_had_not_been(
    started: Callable, short: list[str], tmp_path: Path, uninterrupted_short: Path, assert_same_run: Any
) -> None:
    """Moments all over the run's duration. A run that was through before its moment came makes room for the next."""
    began = time.monotonic()
    with started(*short, "--run.dir", tmp_path / "first") as command:
        command.wait_until((tmp_path / "first" / "recipe.yaml").exists)
        start_up = time.monotonic() - began
        assert command.end().code == 0
    moments = np.random.default_rng(9).uniform(0.9 * start_up, time.monotonic() - began, 20)
    kills = runs = 0
    while kills < len(moments):
        run = tmp_path / str(runs)
        with started(*short, "--run.resume", "--run.dir", run) as command:
            until = time.monotonic() + moments[kills]
            while time.monotonic() < until and not command.ended:
                time.sleep(0.001)
            command.signal(signal.SIGKILL)
            said = command.end()
        assert said.err == ""
        if said.code == -signal.SIGKILL:
            kills += 1
        else:
            assert said.code == 0
            assert_same_run(run, uninterrupted_short)
            runs += 1
    with started(*short, "--run.resume", "--run.dir", tmp_path / str(runs)) as command:
        assert command.end().code == 0
    assert_same_run(tmp_path / str(runs), uninterrupted_short)
