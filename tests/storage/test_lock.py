"""One process at a time holds a folder, which others may ask about as often as they like."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kdaug.errors import InputError
from kdaug.storage.lock import is_locked, lock_directory


def test_a_folder_is_held_until_the_lock_is_closed(
    tmp_path: Path, held_elsewhere: Callable[[Path], AbstractContextManager[None]]
) -> None:
    assert not is_locked(tmp_path)
    with held_elsewhere(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match=f"{tmp_path} is being trained by another process; wait for it or stop it"):
            lock_directory(tmp_path, "trained")
    assert not is_locked(tmp_path)
    lock_directory(tmp_path, "trained").close()


def test_who_asks_is_no_hindrance_to_who_holds(tmp_path: Path) -> None:
    lock_directory(tmp_path, "trained").close()
    loop = f"while True: is_held(Path({str(tmp_path)!r}))"
    ask = f"from pathlib import Path; from kdaug.storage.lock import is_held; print(flush=True)\n{loop}"
    with subprocess.Popen([sys.executable, "-c", ask], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        try:
            for _ in range(200):
                lock_directory(tmp_path, "trained").close()
        finally:
            asking.kill()


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    for name in ("last.safetensors", "last.safetensors.77.part"):
        (tmp_path / name).write_text("")
    lock_directory(tmp_path, "trained").close()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.safetensors"}
