"""Interrupted for real: Ctrl-C, SIGTERM and kill -9 leave a run that the same command brings to the same end."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kdaug.cli.main import main

DEMO = (
    "train demo --data.train-images 256 --optimization.global-batch 64 --optimization.epochs 3 "
    "--run.device cpu --run.threads 1"
).split()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of DEMO, with its teacher, that nobody stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*DEMO, "--run.dir", str(run)]) == 0
    return run


def test_ctrl_c_names_the_command_that_finishes_the_run(
    started: Callable, steps_of: Callable, assert_same_run: Callable, uninterrupted: Path
) -> None:
    """Also in a directory whose name a shell would take apart."""
    run = uninterrupted.with_name("two words")  # beside the first, to share its teacher
    with started(*DEMO, "--run.dir", run) as command:
        command.wait_for_steps(run)
        command.signal(signal.SIGINT)
        said = command.end()
    assert said.code == 130
    last = said.err.splitlines()[-1]
    why, _, way_out = last.partition("; continue with: ")
    assert why == "kdaug: interrupted"
    assert "Traceback" not in said.err
    assert not (run / "last.safetensors").exists()
    assert steps_of(run) == list(range(1, len(steps_of(run)) + 1))

    program, *arguments = shlex.split(way_out)
    assert program == "kdaug"
    with started(*arguments) as command:
        said = command.end()
    assert (said.code, said.err) == (0, "")
    assert "continuing at step" in said.out
    assert_same_run(run, uninterrupted)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has imported is not shown here")
def test_ctrl_c_before_the_first_step_is_one_line(started: Callable, tmp_path: Path) -> None:
    """While libraries are imported, or data read: nothing has begun, nothing is left."""
    for delay in (0, 0.3, 0.8):
        with started(*DEMO, "--run.dir", tmp_path / "run") as command:
            while "torch" not in Path(f"/proc/{command.pid}/maps").read_text():  # its import has begun
                time.sleep(0.001)
            time.sleep(delay)
            command.signal(signal.SIGINT)
            said = command.end()
        assert said.code == 130
        assert "Traceback" not in said.out + said.err
        assert said.err.splitlines()[-1].startswith("kdaug: interrupted")


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once_without_a_traceback(
    started: Callable, assert_same_run: Callable, uninterrupted: Path
) -> None:
    run = uninterrupted.with_name("impatient")
    with started(*DEMO, "--run.dir", run) as command:
        command.wait_for_steps(run)
        for _ in range(4):
            command.signal(signal.SIGINT)
            time.sleep(0.01)
        said = command.end()
    assert said.code == 130
    assert "Traceback" not in said.out + said.err
    assert main(["train", str(run), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.slow
def test_a_run_is_resumed_from_anywhere_and_after_it_was_moved(
    started: Callable, assert_same_run: Callable, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.dir was given relative to where the command was; its recipe.yaml still means the folder it lies in."""
    monkeypatch.chdir(tmp_path)
    with started(*DEMO, "--run.dir", "here/run") as command:
        command.wait_for_steps(Path("here/run"))
        command.signal(signal.SIGINT)
        command.end()
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "../there/run/recipe.yaml", "--run.resume"]) == 0
    assert_same_run(tmp_path / "there" / "run", uninterrupted)
    assert list(Path().iterdir()) == []


@pytest.mark.slow
def test_killed_outright_a_run_goes_on_from_its_last_checkpoint(
    started: Callable, assert_same_run: Callable, uninterrupted: Path
) -> None:
    run = uninterrupted.with_name("killed")
    with started(*DEMO, "--run.checkpoint-minutes", "0", "--run.dir", run) as command:
        command.wait_for_steps(run, 3)
        command.signal(signal.SIGKILL)
        said = command.end()
    assert said.code == -signal.SIGKILL
    assert list((run / "checkpoints").glob("step-*"))
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.slow
def test_killed_while_the_teacher_learns_a_run_finishes_both(
    started: Callable, assert_same_run: Callable, tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    with started(*DEMO, "--run.dir", run) as command:
        (teacher,) = command.wait_until(lambda: list((tmp_path / "teachers").glob("*")))
        command.wait_for_steps(teacher)
        command.signal(signal.SIGKILL)
        command.end()
    assert not (teacher / "last.safetensors").exists()
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_workers_too_stops_a_run_as_well(
    started: Callable,
    assert_same_run: Callable,
    photos_command: list[str],
    tmp_path: Path,
    uninterrupted_photos: Path,
    number: int,
) -> None:
    """As service managers and batch systems send SIGTERM, and terminals Ctrl-C: to every process of the group."""
    run = tmp_path / "run"
    with started(*photos_command, "--run.dir", run) as command:
        command.wait_for_steps(run)
        command.signal(number)
        said = command.end()
    first, last = said.err.splitlines()
    assert first == "kdaug: stopping after this step, with a checkpoint (Ctrl-C again: at once, without)"
    assert last == f"kdaug: interrupted; continue with: kdaug train {run}/recipe.yaml --run.resume"
    assert said.code == 130
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted_photos)


@pytest.mark.slow
def test_a_run_killed_without_its_workers_can_be_resumed_at_once(
    started: Callable, assert_same_run: Callable, photos_command: list[str], tmp_path: Path, uninterrupted_photos: Path
) -> None:
    """As when memory ran out. The workers live on for some seconds and must not count as the run."""
    run = tmp_path / "run"
    with started(*photos_command, "--run.dir", run) as command:
        command.wait_for_steps(run)
        os.kill(command.pid, signal.SIGKILL)
        assert command.end().code == -signal.SIGKILL
        assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted_photos)


def test_a_second_process_is_refused_while_the_first_trains_and_changes_nothing(
    started: Callable, content: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    endless = [*DEMO, "--teacher.source", "none", "--optimization.epochs", "50", "--run.dir", str(run)]
    with started(*endless) as command:
        command.wait_for_steps(run)
        os.kill(command.pid, signal.SIGSTOP)  # it still holds the run
        before = content(run)
        assert main([*endless, "--run.resume"]) == 2
        assert capsys.readouterr().err == f"kdaug: {run} is being trained by another process; wait for it or stop it\n"
        assert content(run) == before
        os.kill(command.pid, signal.SIGCONT)


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(started: Callable, steps_of: Callable, tmp_path: Path) -> None:
    run = tmp_path / "run"
    slow = "--teacher.source none --optimization.global-batch 256 --student.name wide_resnet28_10".split()
    with started(*DEMO, *slow, "--run.dir", run) as command:  # one step takes a while
        command.wait_until((run / "metrics.jsonl").exists)
        asked = time.monotonic()
        for _ in range(2):
            command.signal(signal.SIGINT)
            time.sleep(0.2)
        said = command.end()
        assert time.monotonic() - asked < 60
    assert said.code == 130
    assert said.err.splitlines()[-1] == "kdaug: interrupted"
    assert steps_of(run) == []
