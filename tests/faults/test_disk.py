"""Real disks that are full or read-only: an error of one line, nothing is lost, and the run resumes with more space."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import assert_one_line, running_kdaug
from support.recipes import SHORT_DEMO
from support.runs import assert_same_run, folder_content

FULL = ("the disk is full", "free some space, then continue")


@pytest.mark.parametrize(
    "size", [pytest.param("600k", id="first", marks=pytest.mark.slow), pytest.param("1500k", id="third")]
)
def test_a_checkpoint_that_does_not_fit_stops_the_run(
    kdaug: Callable, mount_disk: Callable[[str], Path], short_run: Path, size: str
) -> None:
    """A checkpoint has 630 KiB; two are kept. Resuming without more space gives the same error and loses nothing."""
    run = mount_disk(f"size={size}") / "run"
    with running_kdaug(*SHORT_DEMO, "--run.dir", run) as command:
        first = command.end()
    for result in (first, kdaug(*SHORT_DEMO, "--run.dir", run, "--run.resume")):
        assert result.code == 2
        assert_one_line(result.err, *FULL)
    assert not (run / "last.safetensors").exists()
    mount_disk("size=64m")
    resumed = kdaug(*SHORT_DEMO, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert ("continuing at step 2 of 16" in resumed.out) == (size == "1500k")
    assert_same_run(run, short_run)


@pytest.mark.slow
def test_metrics_that_do_not_fit_are_not_lost(
    kdaug: Callable, mount_disk: Callable[[str], Path], tmp_path: Path
) -> None:
    """Another file fills the disk between two checkpoints, so that not even a line of metrics can be written."""
    command_line = [*SHORT_DEMO, "--optimization.global-batch", "4", "--run.checkpoint-steps", "20"]
    assert kdaug(*command_line, "--run.dir", tmp_path / "uninterrupted").code == 0
    run = mount_disk("size=8m") / "run"
    with running_kdaug(*command_line, "--run.dir", run) as command:
        command.wait_until((run / "checkpoints" / "step-00000020").exists)
        fill_disk(run.with_name("other"))
        first = command.end()
    for result in (first, kdaug(*command_line, "--run.dir", run, "--run.resume")):
        assert result.code == 2
        assert_one_line(result.err, *FULL)
    run.with_name("other").unlink()
    resumed = kdaug(*command_line, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert "continuing at step 20 of 128" in resumed.out
    assert_same_run(run, tmp_path / "uninterrupted")


def fill_disk(path: Path) -> None:
    """Writes to `path` until the disk is full."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            os.fsync(file.fileno())


def test_runs_on_a_read_only_disk_are_not_changed(
    kdaug: Callable, mount_disk: Callable[[str], Path], stopped_run: Path, short_run: Path
) -> None:
    """New and stopped runs are refused; a finished one can be evaluated."""
    disk = mount_disk("size=64m")
    shutil.copytree(stopped_run, disk / "stopped")
    shutil.copytree(short_run, disk / "finished")
    mount_disk("ro")
    before = folder_content(disk)
    for name in ("new", "deep/in/new", "stopped"):
        result = kdaug(*SHORT_DEMO, "--run.dir", disk / name, "--run.resume")
        assert result.code == 2
        assert_one_line(result.err, f"folder {disk / name} cannot be written: Read-only file system")
    assert kdaug("train", disk / "finished", "--run.resume").code == 0
    assert kdaug("eval", disk / "finished").code == 0
    assert folder_content(disk) == before
