"""kdaug sweep: runs in their own processes, skipped, resumed, re-run, and errors."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from support.recipes import DEMO_FLAGS

from kdaug.cli.main import main
from kdaug.runs import RunDirectory, read_metrics
from kdaug.storage import is_locked
from kdaug.study.sweep import Job


class InProcess:
    """Workers that run each job in this process, which saves the start of a process per job."""

    def __init__(self) -> None:
        self._codes = dict[str, int]()

    def can_start(self) -> bool:
        return True

    def start(self, job: Job, log: Path) -> None:
        self._codes[job.name] = main([*job.arguments])

    def poll(self) -> dict[str, int]:
        codes, self._codes = self._codes, {}
        return codes

    def stop(self) -> None:
        pass


def test_failed_jobs_are_reported_and_finished_ones_skipped(kdaug: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    flags = ("--dir", folder, *DEMO_FLAGS, "--teacher.source", "none", "--jobs", "2")
    command = ("sweep", "demo", "optimization.global_batch=64,9999", *flags)
    result = kdaug(*command)
    assert result.code == 1
    assert (
        "global_batch=9999 failed: optimization.global_batch is 9999, but there are 256 training images" in result.err
    )
    assert "[1/2] global_batch=64: finished, error " in result.out
    run = RunDirectory(folder / "global_batch=64")
    assert run.is_finished
    before = run.metrics.read_bytes()
    again = kdaug(*command)
    assert again.code == 1
    assert "re-run failed jobs with --retry" in again.err
    assert "running" not in again.out
    assert run.metrics.read_bytes() == before
    assert kdaug("runs", folder).out.count("finished") == 1


def test_two_runs_share_a_teacher_and_its_labels(
    kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdaug.cli.sweep.create_workers", lambda *_, **__: InProcess())
    flags = [*DEMO_FLAGS, "--teacher.epochs", "1"]
    assert kdaug("sweep", "demo", "supervision.weight=1,2", "--dir", tmp_path / "s", *flags).code == 0
    (store,) = (tmp_path / "s/labels").iterdir()
    (teacher,) = (tmp_path / "s/teachers").iterdir()
    alone = kdaug("train", "demo", *flags, "--supervision.weight", "2", "--run.dir", tmp_path / "s/alone")
    assert alone.code == 0, alone.err
    assert list((tmp_path / "s/teachers").iterdir()) == [teacher]
    weights = [(tmp_path / "s" / name / "last.safetensors").read_bytes() for name in ("weight=2", "alone", "weight=1")]
    assert weights[0] == weights[1] != weights[2]
    assert str(store) in (tmp_path / "s/weight=2/recipe.yaml").read_text()


def test_student_is_the_teacher_of_the_next_round(
    kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three rounds, the later ones with unlabelled images, each learns from the one before."""
    monkeypatch.setattr("kdaug.cli.sweep.create_workers", lambda *_, **__: InProcess())
    folder, flags = tmp_path / "s", [*DEMO_FLAGS, "--data.train-images", "128"]
    unlabelled = {"data.unlabelled": "unused", "data.unlabelled_share": "0.5"}
    more = " ".join(f"{name}={value}" for name, value in unlabelled.items())
    (tmp_path / "rounds.txt").write_text(
        f"round-2: teacher.source=run:{folder}/round-1 {more}\n"
        f"round-1: teacher.source=run:{folder}/round-0 {more}\n"
        "round-0: teacher.source=none\n"
    )
    result = kdaug("sweep", "demo", "--list", tmp_path / "rounds.txt", "--dir", folder, *flags)
    assert result.code == 0, result.err + result.out
    flags += [word for name, value in unlabelled.items() for word in (f"--{name}", value)]
    for number in (1, 2):
        alone = tmp_path / f"alone-{number}"
        teacher = ("--teacher.source", f"run:{folder}/round-{number - 1}")
        assert kdaug("train", "demo", *flags, *teacher, "--run.dir", alone).code == 0
        weights = [(run / "last.safetensors").read_bytes() for run in (alone, folder / f"round-{number}")]
        assert weights[0] == weights[1]


def when_training(run: Path, action: Callable[[], None]) -> Thread:
    """A started thread that calls `action` as soon as `run` has logged a step."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not read_metrics(run) and time.monotonic() < deadline:
            time.sleep(0.1)
        action()

    thread = Thread(target=wait)
    thread.start()
    return thread


def child_of_this_process(argument: str) -> int:
    """The id of the child process that has `argument` in its command line."""
    children = " ".join(file.read_text() for file in Path("/proc/self/task").glob("*/children")).split()
    (child,) = (pid for pid in children if argument.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())
    return int(child)


@pytest.fixture
def long_sweep(tmp_path: Path) -> tuple[str | Path, ...]:
    """The arguments of a sweep in tmp_path that takes much longer than a test."""
    flags = (*DEMO_FLAGS, "--optimization.epochs", "200", "--run.evaluate-every", "100", "--teacher.source", "none")
    return ("sweep", "demo", "run.seed=0,1", "--dir", tmp_path, *flags)


def test_ctrl_c_leaves_a_checkpoint(kdaug: Callable, long_sweep: tuple[str | Path, ...], tmp_path: Path) -> None:
    run = tmp_path / "seed=0"
    thread = when_training(run, lambda: os.kill(os.getpid(), signal.SIGINT))
    result = kdaug(*long_sweep)
    thread.join()
    assert result.code == 130
    assert "the same command resumes them" in result.err
    assert not is_locked(run)
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert int(checkpoint.name.removeprefix("step-")) == read_metrics(run)[-1]["step"] > 0
    assert not (tmp_path / "seed=1").exists()
    assert json.loads((tmp_path / "failed.json").read_text()) == {}


def test_a_run_stopped_from_outside_is_not_finished(
    kdaug: Callable, long_sweep: tuple[str | Path, ...], tmp_path: Path
) -> None:
    only_one = [argument.replace("=0,1", "=0") if isinstance(argument, str) else argument for argument in long_sweep]
    run = tmp_path / "seed=0"
    thread = when_training(run, lambda: os.kill(child_of_this_process(str(tmp_path)), signal.SIGTERM))
    result = kdaug(*only_one)
    thread.join()
    assert result.code == 1
    assert "0 of 1 jobs finished" in result.out
    assert "seed=0 stopped: interrupted" in result.err


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("sweep", "a recipe is missing"),
        ("sweep demo", "the settings to vary are missing"),
        ("sweep demo run.seed=0 --list x", "exclude each other"),
        ("sweep demo --list {tmp}/no", "cannot be read: No such file"),
        ("sweep demo run.seeed=0", "run seeed=0: run.seeed is not a setting; did you mean run.seed?"),
        ("sweep demo run.seed=x", "run seed=x: run.seed must be a whole number, not 'x' (str)"),
        ("sweep demo supervision.weight=-1", "supervision.weight is -1"),
        ("sweep demo run.seed=0 --jobs 0", "jobs at once is 0"),
        ("sweep demo run.seed=0 --run.dir {tmp}/r", "use --dir"),
        ("sweep demo --dir {tmp}/s run.seed=0", "must come before all flags, but run.seed=0 comes after --dir"),
        ("sweep demo run.dir=a,b", "run.dir cannot vary"),
        ("sweep demo views.magnitude=1,1.0", "runs magnitude=1 and magnitude=1.0 have the same settings"),
        ("sweep --dir {tmp}/s demo", "the recipe comes first"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    command: str, problem: str, kdaug: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = kdaug(*command.format(tmp=tmp_path).split())
    assert result.code == 2, result.err
    assert problem in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
