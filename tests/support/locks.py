"""Directories that another process has locked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAM = """
import sys
from pathlib import Path
from kdaug.storage import lock_directory
lock = lock_directory(Path(sys.argv[1]), "")
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def lock_in_other_process(folder: Path) -> Iterator[None]:
    """Inside the context, another process has the lock of `folder`."""
    command = [sys.executable, "-c", _PROGRAM, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        yield
        process.kill()
