"""Directory locks: one process at a time has the lock, and asking whether a directory is locked does not disturb it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdaug.errors import InputError
from kdaug.storage import is_locked, lock_directory


@contextmanager
def process_running(code: str, directory: Path) -> Iterator[None]:
    """Another process runs `code`, with `directory` as a Path. It has printed a line when this context is entered."""
    program = f"from pathlib import Path; from kdaug.storage import *; directory = Path({str(directory)!r})\n{code}"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield
            assert process.poll() is None
        finally:
            process.kill()


def test_a_lock_lasts_until_it_is_closed(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with process_running("lock = lock_directory(directory, ''); print('ready', flush=True); input()", tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match=f"{tmp_path} is being trained by another process; wait for it or stop it"):
            lock_directory(tmp_path, "trained")
    assert not is_locked(tmp_path)
    lock_directory(tmp_path, "trained").close()


def test_asking_for_a_lock_does_not_prevent_locking(tmp_path: Path) -> None:
    lock_directory(tmp_path, "trained").close()
    with process_running("print('ready', flush=True)\nwhile True: is_locked(directory)", tmp_path):
        for _ in range(200):
            lock_directory(tmp_path, "trained").close()


def test_locking_removes_partial_files_of_a_killed_process(tmp_path: Path) -> None:
    for name in ("last.safetensors", "last.safetensors.77.part"):
        (tmp_path / name).write_text("")
    lock_directory(tmp_path, "trained").close()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.safetensors"}
