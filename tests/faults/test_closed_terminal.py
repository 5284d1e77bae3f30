"""The terminal is closed: SIGHUP writes a checkpoint as SIGTERM does, unless nohup ignores it."""

from __future__ import annotations

import os
import pty
import signal
import sys
import time
from pathlib import Path

import pytest
from support.commands import TIMEOUT, running_command
from support.recipes import SHORT_DEMO
from support.runs import step_numbers

from kdaug.training.interrupt import stop_on_signal

ENDLESS = [*SHORT_DEMO, "--optimization.epochs", "200"]


def test_a_closed_terminal_stops_with_a_checkpoint(tmp_path: Path) -> None:
    """Although each write to stdout and stderr is an error from then on."""
    run = tmp_path / "run"
    command = [sys.executable, "-m", "kdaug", *ENDLESS, "--run.checkpoint-steps", "1000", "--run.dir", str(run)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command)
    os.set_blocking(terminal, False)
    code = None
    deadline = time.monotonic() + TIMEOUT
    try:
        while len(step_numbers(run)) < 2:
            assert time.monotonic() < deadline
            read_all(terminal)
            time.sleep(0.05)
        os.close(terminal)  # the kernel sends SIGHUP
        while code is None and time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            code = os.waitstatus_to_exitcode(status) if ended else None
            time.sleep(0.05)
    finally:
        if code is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert code == 130
    assert list((run / "checkpoints").glob("step-*"))


def read_all(terminal: int) -> None:
    """Reads what a command has printed, so that it does not wait for a reader."""
    try:
        while os.read(terminal, 1 << 16):
            pass
    except OSError:
        return


@pytest.mark.slow
def test_nohup_trains_on_after_a_hangup(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = ("nohup", sys.executable, "-m", "kdaug")
    with running_command(*SHORT_DEMO, "--run.dir", run, program=program) as command:
        command.wait_for_steps(run)
        command.signal(signal.SIGHUP)
        assert command.end().code == 0
    assert (run / "last.safetensors").exists()


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_on_signal() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.is_set()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
