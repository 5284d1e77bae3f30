"""Atomic file writes: after a crash, a kill or a full disk a file has its old content or the new, never a part."""

from __future__ import annotations

import os
from pathlib import Path


def atomic_write(path: Path, content: str | bytes) -> None:
    """Writes `content` to `path`: into a temporary file beside it, fsync, rename. Text is encoded as UTF-8.

    Several processes may write the same file; the last one's content remains. Raises OSError if it cannot be written;
    the old content is then unchanged.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(partial, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def is_partial_file(path: Path) -> bool:
    """Whether this is a temporary file of `atomic_write`, left behind by a process that was killed."""
    return path.name.endswith(".part")


def fsync_directory(directory: Path) -> None:
    """Makes renames in `directory` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
