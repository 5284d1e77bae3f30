"""Disks that are full or may not be written, real ones: one line, nothing lost, and given room the run goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    "room", [pytest.param("600k", id="first", marks=pytest.mark.slow), pytest.param("1500k", id="third")]
)
def test_a_checkpoint_that_finds_no_room_stops_a_run_that_goes_on_when_there_is_some(
    started: Callable,
    kdaug: Callable,
    short: list[str],
    mounted: Callable[[str], Path],
    uninterrupted_short: Path,
    assert_one_line: Callable,
    assert_same_run: Callable,
    room: str,
) -> None:
    """One takes 630 KiB, and two are kept. Asked to go on too early, the run says the same again and loses nothing."""
    run = mounted(f"size={room}") / "run"
    with started(*short, "--run.dir", run) as command:
        first = command.end()
    for said in (first, kdaug(*short, "--run.dir", run, "--run.resume")):
        assert said.code == 2
        assert_one_line(said.err, "the disk is full", "free some space, then continue")
    assert not (run / "last.safetensors").exists()
    mounted("size=64m")
    resumed = kdaug(*short, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert ("continuing at step 2 of 16" in resumed.out) == (room == "1500k")
    assert_same_run(run, uninterrupted_short)


@pytest.mark.slow
def test_metrics_that_find_no_room_are_not_lost(
    kdaug: Callable,
    started: Callable,
    short: list[str],
    mounted: Callable[[str], Path],
    tmp_path: Path,
    assert_one_line: Callable,
    assert_same_run: Callable,
) -> None:
    """The disk fills up between two checkpoints, by what others write: not even lines find room, here or in a copy."""
    command_line = [*short, "--optimization.global-batch", "4", "--run.checkpoint-steps", "20"]
    assert kdaug(*command_line, "--run.dir", tmp_path / "uninterrupted").code == 0
    run = mounted("size=8m") / "run"
    with started(*command_line, "--run.dir", run) as command:
        command.wait_until((run / "checkpoints" / "step-00000020").exists)
        fill(run.with_name("others"))
        said = command.end()
    assert said.code == 2
    assert_one_line(said.err, "the disk is full", "free some space, then continue")
    too_early = kdaug(*command_line, "--run.dir", run, "--run.resume")
    assert too_early.code == 2
    assert_one_line(too_early.err, "the disk is full", "free some space, then continue")
    run.with_name("others").unlink()
    resumed = kdaug(*command_line, "--run.dir", run, "--run.resume")
    assert (resumed.code, resumed.err) == (0, "")
    assert "continuing at step 20 of 128" in resumed.out
    assert_same_run(run, tmp_path / "uninterrupted")


def fill(path: Path) -> None:
    """Takes all that is left on the disk."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            os.fsync(file.fileno())


def test_a_read_only_disk_takes_no_run_and_keeps_those_it_has(
    kdaug: Callable,
    short: list[str],
    mounted: Callable[[str], Path],
    stopped_short: Path,
    uninterrupted_short: Path,
    assert_one_line: Callable,
    content: Callable,
    tmp_path: Path,
) -> None:
    """Neither a new run nor a stopped one; what is finished is still told and measured."""
    disk = mounted("size=64m")
    shutil.copytree(stopped_short, disk / "stopped")
    shutil.copytree(uninterrupted_short, disk / "finished")
    mounted("ro")
    before = content(disk)
    for name in ("new", "deep/in/new", "stopped"):
        said = kdaug(*short, "--run.dir", disk / name, "--run.resume")
        assert said.code == 2
        assert_one_line(said.err, f"folder {disk / name} cannot be written: Read-only file system")
    assert kdaug("train", disk / "finished", "--run.resume").code == 0
    assert kdaug("eval", disk / "finished").code == 0
    assert content(disk) == before
