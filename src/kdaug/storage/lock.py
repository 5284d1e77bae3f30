"""Directory locks: only one process at a time writes to a run directory or a label store."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from kdaug.errors import InputError

LOCK_NAME = ".lock"
_ATTEMPTS, _SECONDS_BETWEEN_ATTEMPTS = 5, 0.1


def lock_directory(directory: Path, activity: str) -> IO[str]:
    """Locks `directory` for this process until the returned file is closed. Removes files that a killed process left.

    activity: for the error message, what the process with the lock does to the directory ("trained" for a run). Raises
    InputError if another process has the lock, or if the directory is not writable.
    """
    try:
        lock = open(directory / LOCK_NAME, "a")
    except OSError as error:
        raise InputError(f"folder {directory} cannot be written: {error.strerror}") from None
    for _ in range(_ATTEMPTS):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # child processes do not inherit it
        except OSError:  # perhaps only the short shared lock of is_locked
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
        else:
            for partial in directory.glob("*.part"):  # see atomic_write
                partial.unlink()
            return lock
    lock.close()
    raise InputError(f"{directory} is being {activity} by another process", "wait for it or stop it")


def is_locked(directory: Path) -> bool:
    """Whether another process has locked `directory`. Takes a short shared lock, for which lock_directory waits."""
    try:
        with open(directory / LOCK_NAME) as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
