"""Writing files so that a crash, a kill or a full disk leaves the old content or the new, never a part of either."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes `content` to `path` in one step: a temporary file beside it, fsync, rename. Text becomes UTF-8.

    Several processes may write the same file at a time; the last one's content stays.
    """
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(unfinished, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def is_part(path: Path) -> bool:
    """Whether a crash left this behind, in the middle of write_whole."""
    return path.name.endswith(".part")


def sync_folder(folder: Path) -> None:
    """Makes the names in `folder` survive a power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
