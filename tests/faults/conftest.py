"""Commands that are hit while they run, what they leave, and the runs of the same recipes that nothing happened to."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from kdaug.cli.main import main
from kdaug.networks.wide_resnet import WideResNet

T = TypeVar("T")
PATIENCE = 120
"""Seconds after which a command that has not ended, or not come where it should, is taken to hang."""
_MARK = "KDAUG_STARTED_BY_TEST"
_numbers = itertools.count()

SHORT = (
    "train demo --teacher.source none --data.train-images 256 --optimization.global-batch 32 --optimization.epochs 2 "
    "--run.evaluate-every 2 --run.checkpoint-steps 1 --run.device cpu --run.threads 1"
).split()
"""The demo recipe in sixteen steps without a teacher, a checkpoint after each, evaluated at the end."""


@dataclass(frozen=True)
class Said:
    """What a command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


class Started:
    """A command under way in a process group of its own, as a shell starts it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._mark = f"{os.getpid()}-{next(_numbers)}"  # by which its workers and ranks are known, whatever their group
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        marked = {**os.environ, **environment, _MARK: self._mark}
        self._process = subprocess.Popen(
            command, stdout=self._out, stderr=self._err, env=marked, start_new_session=True
        )
        self.pid = self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def wait_until(self, happened: Callable[[], T], every: float = 0.02) -> T:
        """What `happened` returns as soon as it is true."""
        give_up = time.monotonic() + PATIENCE
        while not (found := happened()):
            assert not self.ended, self.end()
            assert time.monotonic() < give_up, self._said(0)
            time.sleep(every)
        return found

    def wait_for_steps(self, run: Path, count: int = 1) -> None:
        """Until `count` step lines are in the run's metrics."""
        self.wait_until(lambda: len(steps_of(run)) >= count)

    def signal(self, number: int) -> None:
        """Sends it to every process of the group that is left."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def end(self, patience: float = PATIENCE) -> Said:
        """Waits until the command ends by itself; its workers may outlive it."""
        try:
            return self._said(self._process.wait(patience))
        except subprocess.TimeoutExpired:
            pytest.fail(f"hangs: {self._said(0)}")

    def environments(self) -> dict[int, dict[str, str]]:
        """Of all its processes that live, workers and ranks among them, by process id."""
        found = {}
        for file in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # gone, or somebody else's
                pairs = (pair.partition("=") for pair in file.read_bytes().decode(errors="replace").split("\0"))
                environment = {name: value for name, _, value in pairs}
                if environment.get(_MARK) == self._mark:
                    found[int(file.parent.name)] = environment
        return found

    def children(self) -> set[int]:
        """The processes that it has started."""
        return set(self.environments()) - {self.pid}

    def clear(self) -> None:
        """Ends whatever of it is left."""
        self.signal(signal.SIGKILL)
        for pid in self.environments():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._out.close()
        self._err.close()

    def _said(self, code: int) -> Said:
        texts = []
        for file in (self._out, self._err):
            file.seek(0)
            texts.append(file.read().decode())
        return Said(code, *texts)


@pytest.fixture(scope="session")
def started() -> Callable[..., Any]:
    """`with started(*ARGUMENTS) as command`: `python -m kdaug ARGUMENTS`, or another `program`; more `environment`."""

    @contextmanager
    def start(
        *arguments: str | Path, program: tuple[str, ...] = (sys.executable, "-m", "kdaug"), **environment: str
    ) -> Iterator[Started]:
        command = Started([*program, *map(str, arguments)], environment)
        try:
            yield command
        finally:
            command.clear()

    return start


@pytest.fixture
def kdaug(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`kdaug ARGUMENTS` in this process."""

    def call(*arguments: str | Path) -> Said:
        capfd.readouterr()
        return Said(main([str(argument) for argument in arguments]), *capfd.readouterr())

    return call


def lines_of(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl that are whole."""
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines()[: text.count("\n")]]


def steps_of(run: Path) -> list[int]:
    return [line["step"] for line in lines_of(run) if line["kind"] == "step"]


def _figures_of(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines_of(run)]


@pytest.fixture(scope="session", name="steps_of")
def _steps_of() -> Callable[[Path], list[int]]:
    """The steps that stand in a run's metrics, in their order."""
    return steps_of


@pytest.fixture(scope="session", name="lines_of")
def _lines_of() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a run's metrics.jsonl that are whole."""
    return lines_of


@pytest.fixture(scope="session")
def assert_same_run() -> Callable[[Path, Path], None]:
    """Fails unless a run is, but for the seconds it took, what the other is; no unfinished file may lie about in it."""

    def check(run: Path, uninterrupted: Path) -> None:
        assert _figures_of(run) == _figures_of(uninterrupted)
        assert (run / "last.safetensors").read_bytes() == (uninterrupted / "last.safetensors").read_bytes()
        assert (run / "best.safetensors").read_bytes() == (uninterrupted / "best.safetensors").read_bytes()
        assert not [path for path in run.rglob("*") if path.name.endswith(".part")]

    return check


@pytest.fixture(scope="session")
def assert_one_line() -> Callable[..., None]:
    """Fails unless what a command wrote to stderr is one line of ours in which all `fragments` stand."""

    def check(err: str, *fragments: str) -> None:
        assert err.startswith("kdaug: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        for fragment in fragments:
            assert fragment in err

    return check


@pytest.fixture(scope="session")
def content() -> Callable[[Path], dict[str, bytes]]:
    """All files of a folder, by path."""
    return lambda folder: {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="session")
def short() -> list[str]:
    """SHORT, without a directory."""
    return SHORT


@pytest.fixture(scope="session")
def each_step() -> Callable[..., Any]:
    """`with each_step(see)`: see(step, logits) is called as each training step, from 1, has its logits, and may give
    others instead."""

    @contextmanager
    def watch(see: Callable[[int, Tensor], Tensor | None]) -> Iterator[None]:
        count = itertools.count(1)

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
            learning = isinstance(module, WideResNet) and module.training and torch.is_grad_enabled()
            return see(next(count), output) if learning else None

        handle = register_module_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    return watch


@pytest.fixture(scope="session")
def short_runs(each_step: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run of SHORT to which nothing happened, and what there was of it in its seventh step."""
    place = tmp_path_factory.mktemp("short")
    whole, stopped = place / "whole", place / "stopped"

    def keep(step: int, logits: Tensor) -> None:
        if step == 7:
            shutil.copytree(whole, stopped)

    with each_step(keep):
        assert main([*SHORT, "--run.dir", str(whole)]) == 0
    return whole, stopped


@pytest.fixture(scope="session")
def uninterrupted_short(short_runs: tuple[Path, Path]) -> Path:
    """The run of SHORT to which nothing happened; look only."""
    return short_runs[0]


@pytest.fixture(scope="session")
def stopped_short(short_runs: tuple[Path, Path]) -> Path:
    """What is left of the run of SHORT if all stops in its seventh step; look only, or copy."""
    return short_runs[1]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own in memory: called with the options of mount, it is mounted, or mounted anew, with these."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> Path:
        if os.path.ismount(place):
            command = ["mount", "-o", f"remount,{options}", str(place)]
        else:
            command = ["mount", "-t", "tmpfs", "-o", options, "kdaug-test", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount here")
        if done.returncode:
            pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def photos_command(photos: Path) -> list[str]:
    """Trains a small network on them for ten epochs of five steps, decoding in two processes."""
    return (
        "train photos --teacher.source none --student.name wide_resnet10_1 --data.image-size 32 --data.workers 2 "
        "--optimization.global-batch 8 --optimization.epochs 10 --run.device cpu --run.threads 1 "
        f"--data.root {photos}"
    ).split()


@pytest.fixture(scope="session")
def uninterrupted_photos(photos_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That run when nobody stops it; look only."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*photos_command, "--run.dir", str(run)]) == 0
    return run
