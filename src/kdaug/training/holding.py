"""One process at a time writes in a run directory or a label store: it holds a lock there."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

from kdaug.errors import InputError
from kdaug.files import is_part

LOCK = ".lock"
_TRIES, _SECONDS_BETWEEN_TRIES = 5, 0.1


def hold(folder: Path, used: str) -> IO[str]:
    """Holds `folder`, which is being `used` ("trained"), for this process until the returned file is closed.

    Files there that a killed process was in the middle of writing are removed. Raises InputError if another process
    holds it, or the folder cannot be written.
    """
    try:
        lock = open(folder / LOCK, "a")
    except OSError as error:
        raise InputError(f"folder {folder} cannot be written: {error.strerror}") from None
    for _ in range(_TRIES):
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # of this process: workers do not inherit it
        except OSError:  # perhaps held by somebody who only asks, see is_held
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            for unfinished in filter(is_part, folder.iterdir()):
                unfinished.unlink()
            return lock
    lock.close()
    raise InputError(f"{folder} is being {used} by another process; wait for it or stop it")


def is_held(folder: Path) -> bool:
    """Whether another process holds `folder`."""
    try:
        with open(folder / LOCK) as lock:
            fcntl.lockf(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
