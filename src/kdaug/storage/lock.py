"""Directory locks: only one process at a time writes to a run directory or a label store."""

from __future__ import annotations

import errno
import logging
import time
from pathlib import Path
from typing import IO

from kdaug.errors import InputError

try:
    import fcntl
except ImportError:
    raise InputError(
        "Windows is not supported yet: kdaug locks run directories with fcntl, which only Unix has",
        "use WSL 2 or Linux",
    ) from None

LOCK_NAME = ".lock"
_LOCKED = (errno.EAGAIN, errno.EACCES)
"""What fcntl answers if another process has the lock (POSIX). Any other error: the file system has no locks."""
_logger = logging.getLogger(__name__)
_ATTEMPTS, _SECONDS_BETWEEN_ATTEMPTS = 5, 0.1


def lock_directory(directory: Path, activity: str) -> IO[str]:
    """Locks `directory` for this process until the returned file is closed. Removes files that a killed process left.

    activity: for the error message, what the process with the lock does to the directory ("trained" for a run). On a
    file system without locks (some NFS, Lustre and FUSE mounts) it warns, locks nothing and removes nothing. Raises
    InputError if another process has the lock, or if the directory is not writable.
    """
    try:
        lock = open(directory / LOCK_NAME, "a")
    except OSError as error:
        raise InputError(f"folder {directory} cannot be written: {error.strerror}") from None
    for _ in range(_ATTEMPTS):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # child processes do not inherit it
        except OSError as error:
            if error.errno not in _LOCKED:
                _logger.warning(
                    f"the file system of {directory} has no locks ({error.strerror}); make sure that only one process "
                    "writes to this directory"
                )
                return lock
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)  # perhaps only the short shared lock of is_locked
        else:
            for partial in directory.glob("*.part"):  # see atomic_write
                partial.unlink()
            return lock
    lock.close()
    raise InputError(f"{directory} is being {activity} by another process", "wait for it or stop it")


def is_locked(directory: Path) -> bool:
    """Whether another process has locked `directory`. Takes a short shared lock, for which lock_directory waits.

    False on a file system without locks, where this cannot be known.
    """
    try:
        with open(directory / LOCK_NAME) as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _LOCKED
    return False
