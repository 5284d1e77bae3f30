"""The user's cache directory, for results that can be computed again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def cache_path(folder: Path, kind: str) -> Path:
    """The cache file for results of `kind` about `folder`, below $XDG_CACHE_HOME/kdaug or ~/.cache/kdaug."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    key = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return cache / "kdaug" / kind / key
