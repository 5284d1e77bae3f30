"""Ctrl-C, SIGTERM and kill -9 leave a run that can be resumed to the same result, and one process trains at a time."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import running_command, running_kdaug
from support.runs import assert_same_run, folder_content, step_numbers

from kdaug.cli.main import main

DEMO = (
    "train demo --data.name bundled --data.train-images 256 --teacher.source train --optimization.global-batch 64 "
    "--optimization.epochs 3 --run.evaluate-every 1 --run.device cpu --run.threads 1"
).split()


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of DEMO, with its teacher, never interrupted; runs next to it share the teacher."""
    run = tmp_path_factory.mktemp("demo") / "run"
    assert main([*DEMO, "--run.dir", str(run)]) == 0
    return run


def test_ctrl_c_names_the_command_that_finishes_the_run(kdaug: Callable, demo_run: Path) -> None:
    """Also in a directory whose name needs quotes in a shell."""
    run = demo_run.with_name("two words")
    with running_command(*DEMO, "--run.dir", run) as command:
        command.wait_for_steps(run)
        command.signal(signal.SIGINT)
        result = command.end()
    assert result.code == 130
    problem, _, hint = result.err.splitlines()[-1].partition("; continue with: ")
    assert problem == "kdaug: interrupted"
    assert "Traceback" not in result.err
    assert not (run / "last.safetensors").exists()
    assert step_numbers(run) == list(range(1, len(step_numbers(run)) + 1))

    program, *arguments = shlex.split(hint)
    assert program == "kdaug"
    result = kdaug(*arguments)
    assert (result.code, result.err) == (0, "")
    assert "continuing at step" in result.out
    assert_same_run(run, demo_run)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc to see what a process has imported")
def test_ctrl_c_before_the_first_step_is_one_line(tmp_path: Path) -> None:
    """While libraries are imported or data are loaded."""
    for delay in (0, 0.3, 0.8):
        with running_command(*DEMO, "--run.dir", tmp_path / "run") as command:
            while "torch" not in Path(f"/proc/{command.pid}/maps").read_text():  # until its import has begun
                time.sleep(0.001)
            time.sleep(delay)
            command.signal(signal.SIGINT)
            result = command.end()
        assert result.code == 130
        assert "Traceback" not in result.out + result.err
        assert result.err.splitlines()[-1].startswith("kdaug: interrupted")


@pytest.mark.slow
def test_several_ctrl_c_end_without_a_traceback(demo_run: Path) -> None:
    run = demo_run.with_name("several")
    with running_command(*DEMO, "--run.dir", run) as command:
        command.wait_for_steps(run)
        for _ in range(4):
            command.signal(signal.SIGINT)
            time.sleep(0.01)
        result = command.end()
    assert result.code == 130
    assert "Traceback" not in result.out + result.err
    assert main(["train", str(run), "--run.resume"]) == 0
    assert_same_run(run, demo_run)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_within_the_step(tmp_path: Path) -> None:
    run = tmp_path / "run"
    slow = "--teacher.source none --optimization.global-batch 256 --student.name wide_resnet28_10".split()
    with running_command(*DEMO, *slow, "--run.dir", run) as command:  # one step takes long
        command.wait_until((run / "metrics.jsonl").exists)
        for _ in range(2):
            command.signal(signal.SIGINT)
            time.sleep(0.2)
        result = command.end()
    assert result.code == 130
    assert result.err.splitlines()[-1] == "kdaug: interrupted"
    assert step_numbers(run) == []


@pytest.mark.slow
def test_a_moved_run_resumes_from_any_directory(
    demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.dir was relative to the working directory. A recipe.yaml in a run directory always means that directory."""
    monkeypatch.chdir(tmp_path)
    with running_kdaug(*DEMO, "--run.dir", "first/run") as command:
        command.wait_for_steps(Path("first/run"))
        command.signal(signal.SIGINT)
        command.end()
    (tmp_path / "first").rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["train", "../moved/run/recipe.yaml", "--run.resume"]) == 0
    assert_same_run(tmp_path / "moved" / "run", demo_run)
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_a_killed_run_resumes_from_its_last_checkpoint(demo_run: Path) -> None:
    run = demo_run.with_name("killed")
    with running_kdaug(*DEMO, "--run.checkpoint-minutes", "0", "--run.dir", run) as command:
        command.wait_for_steps(run, 3)
        command.signal(signal.SIGKILL)
        assert command.end().code == -signal.SIGKILL
    assert list((run / "checkpoints").glob("step-*"))
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, demo_run)


@pytest.mark.slow
def test_a_run_killed_while_training_its_teacher_finishes_both(tmp_path: Path, demo_run: Path) -> None:
    run = tmp_path / "run"
    with running_kdaug(*DEMO, "--run.dir", run) as command:
        (teacher,) = command.wait_until(lambda: list((tmp_path / "teachers").glob("*")))
        command.wait_for_steps(teacher)
        command.signal(signal.SIGKILL)
        command.end()
    assert not (teacher / "last.safetensors").exists()
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, demo_run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_workers_too_stops_with_a_checkpoint(
    photos_command: list[str], tmp_path: Path, photos_run: Path, number: int
) -> None:
    """Service managers and batch systems send SIGTERM to all processes of a group, terminals send SIGINT."""
    run = tmp_path / "run"
    with running_command(*photos_command, "--run.dir", run) as command:
        command.wait_for_steps(run)
        command.signal(number)
        result = command.end()
    first, last = result.err.splitlines()
    assert first == "kdaug: stopping after this step, with a checkpoint (Ctrl-C again: stop immediately, without one)"
    assert last == f"kdaug: interrupted; continue with: kdaug train {run} --run.resume"
    assert result.code == 130
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, photos_run)


@pytest.mark.slow
def test_a_run_killed_without_its_workers_resumes_at_once(
    photos_command: list[str], tmp_path: Path, photos_run: Path
) -> None:
    """As when memory ran out. The workers live for some more seconds and do not have the lock."""
    run = tmp_path / "run"
    with running_kdaug(*photos_command, "--run.dir", run) as command:
        command.wait_for_steps(run)
        os.kill(command.pid, signal.SIGKILL)
        assert command.end().code == -signal.SIGKILL
        assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, photos_run)


def test_a_run_that_another_process_trains_is_not_changed(kdaug: Callable, tmp_path: Path) -> None:
    run = tmp_path / "run"
    endless = [*DEMO, "--teacher.source", "none", "--optimization.epochs", "50", "--run.dir", str(run)]
    with running_kdaug(*endless) as command:
        command.wait_for_steps(run)
        os.kill(command.pid, signal.SIGSTOP)  # it keeps its lock
        before = folder_content(run)
        result = kdaug(*endless, "--run.resume")
        assert result.code == 2
        assert result.err == f"kdaug: {run} is being trained by another process; wait for it or stop it\n"
        assert folder_content(run) == before
        os.kill(command.pid, signal.SIGCONT)
