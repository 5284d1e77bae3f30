"""Files on disk: atomic writes, directory locks, the user's cache directory."""

from kdaug.storage.atomic import atomic_write, fsync_directory, is_partial_file
from kdaug.storage.cache import cache_path
from kdaug.storage.lock import LOCK_NAME, is_locked, lock_directory

__all__ = [
    "LOCK_NAME",
    "atomic_write",
    "cache_path",
    "fsync_directory",
    "is_locked",
    "is_partial_file",
    "lock_directory",
]
