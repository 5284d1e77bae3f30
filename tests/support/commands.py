"""Running the kdaug command, in this process or in another one."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TypeVar

import pytest
from support.forkserver import start_process
from support.runs import step_numbers

from kdaug.cli.main import entry, main

T = TypeVar("T")
KDAUG = (sys.executable, "-m", "kdaug")
TIMEOUT = 120
"""Seconds after which a command that neither ends nor does what is expected counts as hanging."""
_MARK = "KDAUG_STARTED_BY_TEST"
_numbers = itertools.count()


@dataclass(frozen=True)
class CommandResult:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


def call_kdaug(capture: pytest.CaptureFixture[str], *arguments: str | Path) -> CommandResult:
    """Runs `kdaug ARGUMENTS` in this process."""
    capture.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as exit:
        code = exit.code
    return CommandResult(code, *capture.readouterr())


def assert_one_line(err: str, *fragments: str) -> None:
    """Fails unless stderr is one line from kdaug that contains all `fragments`."""
    assert err.startswith("kdaug: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    for fragment in fragments:
        assert fragment in err


class RunningCommand:
    """A command that runs in its own session, as a shell starts it."""

    def __init__(self, process: subprocess.Popen[bytes] | _ForkedKdaug, out: Path, err: Path, mark: str) -> None:
        self._process, self._out, self._err, self._mark = process, out, err, mark
        self.pid = process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait_until(self, condition: Callable[[], T], interval: float = 0.02) -> T:
        """The first true value that `condition` returns. Fails if the command ends before."""
        deadline = time.monotonic() + TIMEOUT
        while not (value := condition()):
            assert not self.has_ended, self.end()
            assert time.monotonic() < deadline, self._result(0)
            time.sleep(interval)
        return value

    def wait_for_steps(self, run: Path, count: int = 1) -> None:
        """Waits until the metrics of `run` have `count` steps."""
        self.wait_until(lambda: len(step_numbers(run)) >= count)

    def signal(self, number: int) -> None:
        """Sends a signal to the command and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, timeout: float = TIMEOUT) -> CommandResult:
        """Waits until the command has ended; its workers may still run."""
        try:
            return self._result(self._process.wait(timeout))
        except subprocess.TimeoutExpired:
            pytest.fail(f"hangs: {self._result(0)}")

    def children(self) -> set[int]:
        """Its living worker processes."""
        return {pid for pid in _processes() if pid != self.pid and _session(pid) == self.pid}

    def ranks(self) -> dict[int, int]:
        """If the command is torchrun: the process id of each living rank."""
        environments = {pid: _environment(pid) for pid in _processes()}
        return {int(e["RANK"]): pid for pid, e in environments.items() if e.get(_MARK) == self._mark and "RANK" in e}

    def clear(self) -> None:
        """Kills all its processes."""
        for pid in (*self.children(), *self.ranks().values(), self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _result(self, code: int) -> CommandResult:
        return CommandResult(code, self._out.read_text(), self._err.read_text())


@contextmanager
def running_command(
    *arguments: str | Path, program: tuple[str, ...] = KDAUG, **environment: str
) -> Iterator[RunningCommand]:
    """Starts `program ARGUMENTS` with additional environment variables, and kills what is left of it at the end."""
    with tempfile.TemporaryDirectory() as folder:
        out, err, mark = Path(folder, "out"), Path(folder, "err"), f"{os.getpid()}-{next(_numbers)}"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            command = [*program, *map(str, arguments)]
            marked = {**os.environ, **environment, _MARK: mark}
            process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=marked, start_new_session=True)
        yield from _until_cleared(RunningCommand(process, out, err, mark))


@contextmanager
def running_kdaug(*arguments: str | Path) -> Iterator[RunningCommand]:
    """As `running_command`, without the seconds that importing torch takes: the process is forked from a server."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch()
        err.touch()
        process = start_process(_run_kdaug, [*map(str, arguments)], out, err, environment=dict(os.environ))
        yield from _until_cleared(RunningCommand(_ForkedKdaug(process), out, err, ""))


def _until_cleared(command: RunningCommand) -> Iterator[RunningCommand]:
    try:
        yield command
    finally:
        command.clear()


def _run_kdaug(arguments: list[str], out: Path, err: Path) -> None:
    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = ["kdaug", *arguments]
    entry()


class _ForkedKdaug:
    """A forked process with the methods of subprocess.Popen."""

    def __init__(self, process: ForkServerProcess) -> None:
        self._process = process
        self.pid = process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("kdaug", timeout or 0)
        return self._process.exitcode


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _session(pid: int) -> int | None:
    """The session of a living process; None if it has ended."""
    try:
        state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state == "Z" else int(session)


def _environment(pid: int) -> dict[str, str]:
    """The variables that a living process was started with; none if it has ended or is another user's."""
    try:
        text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return {name: value for name, _, value in (pair.partition("=") for pair in text.split("\0"))}
