"""Atomic writes: after a crash, a kill or with a full disk, a file has either its old or its new content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes `content` to a temporary file NAME.PID.part in the same directory, calls fsync, and renames it to `path`.

    Text is encoded as UTF-8. If several processes write a file, the last one wins. An OSError leaves the old content.
    """
    with atomic_file(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A temporary file NAME.PID.part in the same directory, renamed to `path` at the end of the block, after fsync.

    If the block raises anything, the temporary file is removed and the old content left.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def fsync_directory(directory: Path) -> None:
    """Makes renames in `directory` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder NAME.PID.part in the same directory, renamed to `path` at the end of the block.

    If the block raises anything, the folder is removed. The files in it should be written by `atomic_write`, which
    calls fsync. Raises OSError if `path` is a file or a folder with files.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.mkdir()
    try:
        yield partial
        fsync_directory(partial)
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
