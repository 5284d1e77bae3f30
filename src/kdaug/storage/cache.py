"""The user's cache directory, for arrays that can be computed again."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.storage.atomic import atomic_write


def cache_path(folder: Path, kind: str) -> Path | None:
    """The cache file for results of `kind` for `folder`, below $XDG_CACHE_HOME/kdaug or ~/.cache/kdaug.

    None if the user has no home directory: then nothing is cached.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    if not cache.is_absolute():
        return None
    key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return cache / "kdaug" / kind / key


def read_cache(path: Path | None, state: str) -> dict[str, NDArray[Any]] | None:
    """The arrays in a cache file; None if there are none, or they are damaged or of another state.

    state: what the arrays were computed from, and their format.
    """
    if path is None:
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)  # raises BadZipFile if a checksum is wrong
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if str(arrays.pop("state", None)) == state else None


def write_cache(path: Path | None, state: str, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes `arrays` for `read_cache`. If that fails, the next start is slower, nothing else."""
    if path is None:
        return
    content = io.BytesIO()
    np.savez(content, state=np.array(state), **arrays)  # type: ignore[arg-type]
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content.getvalue())
