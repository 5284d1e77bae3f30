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
from pathlib import Path
from typing import TypeVar

import pytest
from support.runs import step_numbers

from kdaug.cli.main import main

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
    """A command that runs in its own process group, as a shell starts it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._mark = f"{os.getpid()}-{next(_numbers)}"  # identifies its workers and ranks in any process group
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        marked = {**os.environ, **environment, _MARK: self._mark}
        self._process = subprocess.Popen(
            command, stdout=self._out, stderr=self._err, env=marked, start_new_session=True
        )
        self.pid = self._process.pid

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
        """Sends a signal to every process of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, timeout: float = TIMEOUT) -> CommandResult:
        """Waits until the command has ended; its workers may still run."""
        try:
            return self._result(self._process.wait(timeout))
        except subprocess.TimeoutExpired:
            pytest.fail(f"hangs: {self._result(0)}")

    def environments(self) -> dict[int, dict[str, str]]:
        """The environment of each of its living processes, including workers and ranks, by process id."""
        environments = {}
        for file in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # the process has ended, or is another user's
                pairs = (pair.partition("=") for pair in file.read_bytes().decode(errors="replace").split("\0"))
                environment = {name: value for name, _, value in pairs}
                if environment.get(_MARK) == self._mark:
                    environments[int(file.parent.name)] = environment
        return environments

    def children(self) -> set[int]:
        """The processes that it has started."""
        return set(self.environments()) - {self.pid}

    def clear(self) -> None:
        """Kills all its processes."""
        self.signal(signal.SIGKILL)
        for pid in self.environments():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._out.close()
        self._err.close()

    def _result(self, code: int) -> CommandResult:
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode())
        return CommandResult(code, *texts)


@contextmanager
def running_command(
    *arguments: str | Path, program: tuple[str, ...] = KDAUG, **environment: str
) -> Iterator[RunningCommand]:
    """Starts `program ARGUMENTS` with additional environment variables, and kills what is left of it at the end."""
    command = RunningCommand([*program, *map(str, arguments)], environment)
    try:
        yield command
    finally:
        command.clear()
