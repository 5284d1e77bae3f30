"""Runs that were never interrupted, to compare with, and disks that can be full or read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.images import write_noise
from support.recipes import SHORT_DEMO
from support.steps import after_each_forward
from torch import Tensor

from kdaug.cli.main import main


@pytest.fixture(scope="session")
def short_runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """SHORT_DEMO without interruption, and a copy of its directory during its seventh step."""
    folder = tmp_path_factory.mktemp("short")
    run, stopped = folder / "run", folder / "stopped"

    def copy_run(step: int, logits: Tensor) -> None:
        if step == 7:
            shutil.copytree(run, stopped)

    with after_each_forward(copy_run):
        assert main([*SHORT_DEMO, "--run.dir", str(run)]) == 0
    return run, stopped


@pytest.fixture(scope="session")
def short_run(short_runs: tuple[Path, Path]) -> Path:
    """The run of SHORT_DEMO, never interrupted; read only."""
    return short_runs[0]


@pytest.fixture
def stopped_run(short_runs: tuple[Path, Path], tmp_path: Path) -> Path:
    """What a run of SHORT_DEMO leaves if it is killed in its seventh step; a test may change it."""
    return shutil.copytree(short_runs[1], tmp_path / "run")


@pytest.fixture
def mount_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """mount_disk(options) mounts a disk in memory with options of mount, or remounts it with other ones."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        if os.path.ismount(folder):
            command = ["mount", "-o", f"remount,{options}", str(folder)]
        else:
            command = ["mount", "-t", "tmpfs", "-o", options, "kdaug-test", str(folder)]
        try:
            result = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("this system has no mount command")
        if result.returncode:
            pytest.skip(f"mounting is not allowed: {result.stderr.strip()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes of colored noise, sixteen JPEGs each."""
    return write_noise(tmp_path_factory.mktemp("photos"), {"red": 16, "green": 16, "blue": 16}, (60, 48), "jpg")


@pytest.fixture(scope="session")
def photos_command(photos: Path) -> list[str]:
    """Trains a small network on `photos` for five epochs of five steps, with two decoding processes."""
    return (
        "train photos --teacher.source none --student.name wide_resnet10_1 --data.image-size 32 --data.workers 2 "
        "--optimization.global-batch 8 --optimization.epochs 5 --run.device cpu --run.threads 1 "
        f"--data.root {photos}"
    ).split()


@pytest.fixture(scope="session")
def photos_run(photos_command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `photos_command`, never interrupted; read only."""
    run = tmp_path_factory.mktemp("photos") / "run"
    assert main([*photos_command, "--run.dir", str(run)]) == 0
    return run
