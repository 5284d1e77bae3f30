"""Checks of folders before work that writes to them."""

from __future__ import annotations

import os
from pathlib import Path

from kdaug.errors import InputError


def check_writable_folder(folder: Path) -> None:
    """Raises InputError if `folder` is not writable, or if it does not exist and cannot be created. Writes nothing."""
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"{existing} is not a folder that can be written to", "choose another folder")
