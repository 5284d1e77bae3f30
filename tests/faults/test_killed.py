"""kill -9 at any moment, repeatedly and while files are written: resuming gives the same result."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.commands import RunningCommand, running_kdaug
from support.recipes import SHORT_DEMO
from support.runs import assert_same_run, folder_content

FILES = ("weights.safetensors.*.part", "state.pt.*.part", "sha256.json")
"""The files of a checkpoint in the order in which they are written, under their names at that time."""


def stop_while_writing(command: RunningCommand, run: Path, file: str, after: int) -> int:
    """Stops the command while `file` is in the incomplete checkpoint of a step above `after`; returns that step."""

    def writing() -> int:
        for path in (run / "checkpoints").glob(f".step-*.part/{file}"):
            step = int(re.findall(r"\d+", path.parent.name)[0])
            if step > after:
                command.signal(signal.SIGSTOP)
                if path.exists():
                    return step
                command.signal(signal.SIGCONT)  # too late; try again with the next checkpoint
        return 0

    command.wait_until((run / "metrics.jsonl").exists)
    return command.wait_until(writing, interval=0.0002)


def test_a_run_killed_while_writing_checkpoints_resumes(kdaug: Callable, tmp_path: Path, short_run: Path) -> None:
    """Each time from the checkpoint before the incomplete one."""
    run, stopped_at = tmp_path / "run", [0]
    for file in FILES:
        with running_kdaug(*SHORT_DEMO, "--run.resume", "--run.dir", run) as command:
            stopped_at.append(stop_while_writing(command, run, file, after=stopped_at[-1] + 1))
            command.signal(signal.SIGKILL)
            result = command.end()
        assert result.code == -signal.SIGKILL
        assert list((run / "checkpoints" / f".step-{stopped_at[-1]:08}.part").glob(file))
        assert stopped_at[-2] == 0 or f"continuing at step {stopped_at[-2] - 1} of 16" in result.out
        assert "damaged" not in result.out
        assert result.err == ""
    result = kdaug(*SHORT_DEMO, "--run.resume", "--run.dir", run)
    assert (result.code, result.err) == (0, "")
    assert f"continuing at step {stopped_at[-1] - 1} of 16" in result.out
    assert_same_run(run, short_run)


def test_a_killed_labeling_resumes(kdaug: Callable, short_run: Path, tmp_path: Path) -> None:
    """Files that are complete are not written again."""
    data = ["--data.name", "bundled", "--data.train-images", "256"]
    settings = [*data, *"--optimization.epochs 400 --run.device cpu --run.threads 1".split()]
    label = ["label", "demo", *settings, "--teacher.source", f"run:{short_run}", "--epochs", "0:12"]
    store = tmp_path / "store"
    with running_kdaug(*label, "--out", store) as command:
        command.wait_until(lambda: len(list(store.glob("epoch-*.safetensors"))) >= 3, interval=0.002)
        command.signal(signal.SIGKILL)
        assert command.end().code == -signal.SIGKILL
    before = {path: content for path, content in folder_content(store).items() if path.endswith("-0.safetensors")}
    assert 3 <= len(before) < 12
    train = ["train", "demo", *data, "--teacher.labels", store, "--optimization.epochs", "12"]
    result = kdaug(*train, "--run.dir", tmp_path / "run")
    assert result.code == 2
    assert "is needed, but epoch-" in result.err
    assert kdaug(*label, "--out", store).code == 0
    assert before.items() <= folder_content(store).items()
    assert kdaug(*label, "--out", tmp_path / "uninterrupted").code == 0
    labels, expected = (
        {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}
        for folder in (store, tmp_path / "uninterrupted")
    )
    assert len(labels) == 13
    assert labels == expected


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_at_twenty_random_moments_resumes(tmp_path: Path, short_run: Path) -> None:
    """Moments over the whole duration of a run. If a run finishes before its moment, the next one starts."""
    start = time.monotonic()
    with running_kdaug(*SHORT_DEMO, "--run.dir", tmp_path / "first") as command:
        command.wait_until((tmp_path / "first" / "recipe.yaml").exists)
        start_up = time.monotonic() - start
        assert command.end().code == 0
    moments = np.random.default_rng(9).uniform(0.9 * start_up, time.monotonic() - start, 20)
    kills = runs = 0
    while kills < len(moments):
        run = tmp_path / str(runs)
        with running_kdaug(*SHORT_DEMO, "--run.resume", "--run.dir", run) as command:
            until = time.monotonic() + moments[kills]
            while time.monotonic() < until and not command.has_ended:
                time.sleep(0.001)
            command.signal(signal.SIGKILL)
            result = command.end()
        assert result.err == ""
        if result.code == -signal.SIGKILL:
            kills += 1
        else:
            assert result.code == 0
            assert_same_run(run, short_run)
            runs += 1
    with running_kdaug(*SHORT_DEMO, "--run.resume", "--run.dir", tmp_path / str(runs)) as command:
        assert command.end().code == 0
    assert_same_run(tmp_path / str(runs), short_run)
