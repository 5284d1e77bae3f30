"""Directory locks: one process at a time has the lock, and asking whether a directory is locked does not disturb it."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kdaug.errors import InputError
from kdaug.storage import is_locked, lock_directory


@contextmanager
def process_with(code: str, directory: Path) -> Iterator[Callable[[], None]]:
    """Another process that has run `code` and waits. Calling the value makes it run `release()`."""
    program = (
        "import fcntl; from pathlib import Path; from kdaug.storage import LOCK_NAME, is_locked, lock_directory\n"
        f"directory, release = Path({str(directory)!r}), lambda: None\n{code}\n"
        "print('ready', flush=True); input(); release(); print('ready', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def release() -> None:
            stdin.write("\n")
            stdin.flush()
            assert stdout.readline() == "ready\n"

        try:
            assert stdout.readline() == "ready\n"
            yield release
        finally:
            process.kill()


def test_a_lock_lasts_until_it_is_closed(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with process_with("lock = lock_directory(directory, ''); release = lock.close", tmp_path) as release:
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match=f"{tmp_path} is being trained by another process; wait for it or stop it"):
            lock_directory(tmp_path, "trained")
        release()
        assert not is_locked(tmp_path)
        lock_directory(tmp_path, "trained").close()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    with process_with("lock = lock_directory(directory, '')", tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    lock_directory(tmp_path, "trained").close()


def test_asking_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_directory(tmp_path, "trained").close()
    with process_with("assert not is_locked(directory)", tmp_path):
        monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("the first attempt must succeed"))
        lock_directory(tmp_path, "trained").close()


def test_locking_waits_for_another_process_that_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock_directory(tmp_path, "trained").close()
    ask = "file = open(directory / LOCK_NAME); fcntl.lockf(file, fcntl.LOCK_SH); release = file.close"
    with process_with(ask, tmp_path) as release:
        assert not is_locked(tmp_path), "two processes may ask at the same time"
        monkeypatch.setattr(time, "sleep", lambda _: release())
        lock_directory(tmp_path, "trained").close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL])
def test_without_locks_it_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    """NFS without lockd, Lustre without flock, FUSE. A file that another process may be writing stays."""
    (tmp_path / "last.safetensors.77.part").touch()
    answer_locks_with(number, monkeypatch)
    lock_directory(tmp_path, "trained").close()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"the file system of {tmp_path} has no locks ({os.strerror(number)})" in record.message
    assert (tmp_path / "last.safetensors.77.part").exists()
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_both_answers_of_posix_mean_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    lock_directory(tmp_path, "trained").close()
    answer_locks_with(number, monkeypatch)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert is_locked(tmp_path)
    with pytest.raises(InputError, match="is being trained by another process"):
        lock_directory(tmp_path, "trained")


def answer_locks_with(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)


def test_a_system_without_fcntl_is_told_so_in_one_line() -> None:
    """Windows."""
    program = (
        "import sys; sys.modules['fcntl'] = None\nfrom kdaug.cli.main import main; sys.exit(main(['train', 'demo']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        "kdaug: Windows is not supported yet: kdaug locks run directories with fcntl, which only Unix has; "
        "use WSL 2 or Linux\n"
    )


def test_locking_removes_partial_files_of_a_killed_process(tmp_path: Path) -> None:
    for name in ("last.safetensors", "last.safetensors.77.part"):
        (tmp_path / name).write_text("")
    lock_directory(tmp_path, "trained").close()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "last.safetensors"}
