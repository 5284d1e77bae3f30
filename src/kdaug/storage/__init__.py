"""Files on disk: atomic writes, directory locks, the user's cache directory."""

from kdaug.storage.atomic import atomic_file, atomic_folder, atomic_write, fsync_directory
from kdaug.storage.cache import cache_path, read_cache, write_cache
from kdaug.storage.folder import check_writable_folder
from kdaug.storage.lock import LOCK_NAME, is_locked, lock_directory

__all__ = [
    "LOCK_NAME",
    "atomic_file",
    "atomic_folder",
    "atomic_write",
    "cache_path",
    "check_writable_folder",
    "fsync_directory",
    "is_locked",
    "lock_directory",
    "read_cache",
    "write_cache",
]
