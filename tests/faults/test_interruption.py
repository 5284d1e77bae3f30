"""Interrupted for real: Ctrl-C, SIGTERM and kill -9 leave a run that the same command brings to the same end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdaug.cli.main import main

DEMO = (
    "train demo --data.train-images 256 --optimization.global-batch 64 --optimization.epochs 3 "
    "--run.device cpu --run.threads 1"
).split()
PATIENCE = 120


def lines_of(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()[: text.count("\n")]]


def steps_of(run: Path) -> list[int]:
    return [line["step"] for line in lines_of(run) if line["kind"] == "step"]


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """`python -m kdaug ARGUMENTS` in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "kdaug", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_for_steps(run: Path, process: subprocess.Popen[str], count: int = 1) -> None:
    """Until `count` step lines are in the run's metrics."""
    give_up = time.monotonic() + PATIENCE
    while len(steps_of(run)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.02)


def weights(run: Path) -> bytes:
    return (run / "last.safetensors").read_bytes()


def without_seconds(lines: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same_run(run: Path, uninterrupted: Path) -> None:
    assert without_seconds(lines_of(run)) == without_seconds(lines_of(uninterrupted))
    assert weights(run) == weights(uninterrupted)
    left = {path.name for path in run.rglob("*") if path.name.endswith(".part")}
    assert not left


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of DEMO, with its teacher, that nobody stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*DEMO, "--run.dir", str(run)]) == 0
    return run


def test_ctrl_c_names_the_command_that_finishes_the_run(uninterrupted: Path) -> None:
    """Also in a directory whose name a shell would take apart."""
    run = uninterrupted.with_name("two words")  # beside the first, to share its teacher
    with started([*DEMO, "--run.dir", str(run)]) as process:
        wait_for_steps(run, process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    last = err.splitlines()[-1]
    said, _, command = last.partition("; continue with: ")
    assert said == "kdaug: interrupted"
    assert "Traceback" not in err
    assert not (run / "last.safetensors").exists()
    assert steps_of(run) == list(range(1, len(steps_of(run)) + 1))

    program, *arguments = shlex.split(command)
    assert program == "kdaug"
    finished = subprocess.run([sys.executable, "-m", "kdaug", *arguments], capture_output=True, text=True)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "continuing at step" in finished.stdout
    assert_same_run(run, uninterrupted)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="what a process has imported is not shown here")
def test_ctrl_c_before_the_first_step_is_one_line(tmp_path: Path) -> None:
    """While libraries are imported, or data read: nothing has begun, nothing is left."""
    for delay in (0, 0.3, 0.8):
        with started([*DEMO, "--run.dir", str(tmp_path / "run")]) as process:
            while "torch" not in Path(f"/proc/{process.pid}/maps").read_text():  # its import has begun
                time.sleep(0.001)
            time.sleep(delay)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "Traceback" not in out + err
        assert err.splitlines()[-1].startswith("kdaug: interrupted")


def test_a_second_ctrl_c_stops_at_once_without_a_traceback(uninterrupted: Path) -> None:
    run = uninterrupted.with_name("impatient")
    with started([*DEMO, "--run.dir", str(run)]) as process:
        wait_for_steps(run, process)
        for _ in range(4):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.01)
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in out + err
    assert main(["train", str(run), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted)


def test_a_run_is_resumed_from_anywhere_and_after_it_was_moved(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.dir was given relative to where the command was; its recipe.yaml still means the folder it lies in."""
    monkeypatch.chdir(tmp_path)
    with started([*DEMO, "--run.dir", "here/run"]) as process:
        wait_for_steps(Path("here/run"), process)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["train", "../there/run/recipe.yaml", "--run.resume"]) == 0
    assert_same_run(tmp_path / "there" / "run", uninterrupted)
    assert list(Path().iterdir()) == []


def test_killed_outright_a_run_goes_on_from_its_last_checkpoint(uninterrupted: Path) -> None:
    run = uninterrupted.with_name("killed")
    with started([*DEMO, "--run.checkpoint-minutes", "0", "--run.dir", str(run)]) as process:
        wait_for_steps(run, process, count=3)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL
    assert list((run / "checkpoints").glob("step-*"))
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted)


def test_killed_while_the_teacher_learns_a_run_finishes_both(tmp_path: Path, uninterrupted: Path) -> None:
    run = tmp_path / "run"
    with started([*DEMO, "--run.dir", str(run)]) as process:
        give_up = time.monotonic() + PATIENCE
        while not (teachers := list((tmp_path / "teachers").glob("*"))) or not steps_of(teachers[0]):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=PATIENCE)
    assert not (teachers[0] / "last.safetensors").exists()
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes of coloured noise, sixteen JPEGs each."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(1)
    for label, name in enumerate(("red", "green", "blue")):
        (folder / name).mkdir()
        for number in range(16):
            pixels = random.integers(0, 120, (48, 60, 3), dtype=np.uint8)
            pixels[..., label] += 100
            Image.fromarray(pixels).save(folder / name / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def photos_command(photos: Path) -> list[str]:
    """Trains a small network on them for ten epochs of five steps, decoding in two processes."""
    return (
        "train photos --teacher.source none --student.name wide_resnet10_1 --data.image-size 32 --data.workers 2 "
        "--optimization.global-batch 8 --optimization.epochs 10 --run.device cpu --run.threads 1 "
        f"--data.root {photos}"
    ).split()


@pytest.fixture(scope="module")
def uninterrupted_photos(photos_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run when nobody stops it."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*photos_command, "--run.dir", str(run)]) == 0
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_workers_too_stops_a_run_as_well(
    photos_command: list[str], tmp_path: Path, uninterrupted_photos: Path, number: int
) -> None:
    """As service managers and batch systems send SIGTERM, and terminals Ctrl-C: to every process of the group."""
    run = tmp_path / "run"
    with started([*photos_command, "--run.dir", str(run)]) as process:
        wait_for_steps(run, process)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=PATIENCE)
    first, last = err.splitlines()
    assert first == "kdaug: stopping after this step, with a checkpoint (Ctrl-C again: at once, without)"
    assert last == f"kdaug: interrupted; continue with: kdaug train {run}/recipe.yaml --run.resume"
    assert process.returncode == 130
    assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted_photos)


def test_a_run_killed_without_its_workers_can_be_resumed_at_once(
    photos_command: list[str], tmp_path: Path, uninterrupted_photos: Path
) -> None:
    """As when memory ran out. The workers live on for some seconds and must not count as the run."""
    run = tmp_path / "run"
    with started([*photos_command, "--run.dir", str(run)]) as process:
        wait_for_steps(run, process)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert main(["train", str(run / "recipe.yaml"), "--run.resume"]) == 0
    assert_same_run(run, uninterrupted_photos)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_second_process_is_refused_while_the_first_trains_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = [*DEMO, "--teacher.source", "none", "--optimization.epochs", "50", "--run.dir", str(run)]
    with started(command) as process:
        wait_for_steps(run, process)
        os.kill(process.pid, signal.SIGSTOP)  # it still holds the run
        before = content(run)
        assert main([*command, "--run.resume"]) == 2
        err = capsys.readouterr().err
        assert err == f"kdaug: {run} is being trained by another process; wait for it or stop it\n"
        assert content(run) == before
        os.kill(process.pid, signal.SIGCONT)


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [*DEMO, "--teacher.source", "none", "--optimization.global-batch", "256", "--run.dir", str(run)]
    with started([*command, "--student.name", "wide_resnet28_10"]) as process:  # one step takes a while
        give_up = time.monotonic() + PATIENCE
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < give_up
            time.sleep(0.02)
        asked = time.monotonic()
        for _ in range(2):
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.2)
        _, err = process.communicate(timeout=PATIENCE)
        assert time.monotonic() - asked < 60
    assert process.returncode == 130
    assert err.splitlines()[-1] == "kdaug: interrupted"
    assert steps_of(run) == []
