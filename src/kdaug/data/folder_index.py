"""The index of an image folder: classes and image paths, cached on disk until a sub-folder's mtime changes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaug.storage import cache_path, read_cache, write_cache

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .tga .ico".split()
)
_CACHE_VERSION = "2"
_MIN_FILES_TO_CACHE = 1_000
"""The index of a folder with fewer images is not cached: a scan is fast."""
_SETTLE_SECONDS = 2.0
"""A folder changed less than this before the scan may change again within the resolution of its modification time."""


class FilePaths:
    """Paths below `root`. Each Path is made when it is indexed, so a million of them take little memory.

    names: the paths relative to root, concatenated, as bytes; path i is names[starts[i]:ends[i]].
    """

    def __init__(self, root: Path, names: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.root, self._names, self._starts, self._ends = root, names, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[Path]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Path:
        return self.root / os.fsdecode(self._names[self._starts[index] : self._ends[index]])

    @classmethod
    def from_bytes(cls, root: Path, names: bytes, count: int) -> FilePaths:
        """From `count` paths relative to root, separated by zero bytes in `names`."""
        ends = np.append(np.flatnonzero(np.frombuffer(names, np.uint8) == 0), len(names))[:count]
        return cls(root, names, np.append(0, ends[:-1] + 1)[:count], ends)

    def names(self) -> list[bytes]:
        """The paths relative to root, with slashes, as bytes."""
        return [self._names[start:end] for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True)]

    def take(self, rows: NDArray[np.int64]) -> FilePaths:
        """The paths at `rows`."""
        return FilePaths(self.root, self._names, self._starts[rows], self._ends[rows])


@dataclass(frozen=True)
class FolderIndex:
    """The classes (sub-folders with images, sorted by name) of a folder, and the images of each class, sorted by path.

    counts: number of images of each class. names: the image paths relative to the folder, separated by zero bytes.
    mtimes: modification time (ns) of each folder that was scanned, by its path relative to the folder.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    names: bytes
    mtimes: dict[str, int]

    def paths(self, folder: Path) -> FilePaths:
        """The image paths, sorted by class. folder: the current path of the indexed folder."""
        return FilePaths.from_bytes(folder, self.names, sum(self.counts))

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each image, int64 [N]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def load_index(folder: Path) -> FolderIndex:
    """The index of `folder`: the cached one if it is valid, else from a scan. Raises OSError if it cannot be read."""
    cache_file = cache_path(folder, "folders")
    if cached := _read_cached_index(folder, cache_file):
        return cached
    scan_start = time.time_ns()
    index = scan_folder(folder)
    settled = max(index.mtimes.values()) < scan_start - _SETTLE_SECONDS * 1e9
    if sum(index.counts) >= _MIN_FILES_TO_CACHE and settled:
        header = json.dumps({"classes": index.classes, "counts": index.counts, "mtimes": index.mtimes})
        arrays = {"header": np.array(header), "names": np.frombuffer(index.names, np.uint8)}
        write_cache(cache_file, _CACHE_VERSION, arrays)
    return index


def _read_cached_index(folder: Path, cache_file: Path) -> FolderIndex | None:
    """The cached index; None if there is none, or if one of its folders has gone or was modified."""
    arrays = read_cache(cache_file, _CACHE_VERSION)
    if arrays is None:
        return None
    header = json.loads(str(arrays["header"]))
    mtimes = header["mtimes"]
    try:
        if any(os.stat(folder / path).st_mtime_ns != mtime for path, mtime in mtimes.items()):
            return None
    except OSError:
        return None
    return FolderIndex(tuple(header["classes"]), tuple(header["counts"]), arrays["names"].tobytes(), mtimes)


def scan_folder(folder: Path) -> FolderIndex:
    """Scans `folder` recursively and follows links, but enters no folder twice and none that contains `folder`."""
    classes, counts, names = [], [], list[bytes]()
    mtimes = {"": folder.stat().st_mtime_ns}
    prefix_length = len(os.path.join(folder, ""))

    def record_mtime(path: str) -> None:
        mtimes[path[prefix_length:]] = os.stat(path).st_mtime_ns

    for class_folder in subfolders(folder):
        paths = sorted(files_under(class_folder, is_image, record_mtime))
        if paths:
            classes.append(class_folder.name)
            counts.append(len(paths))
            names += (os.fsencode(path[prefix_length:]) for path in paths)
    return FolderIndex(tuple(classes), tuple(counts), b"\0".join(names), mtimes)


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted by name, without hidden ones (.git, .ipynb_checkpoints)."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def files_under(
    folder: Path, accept: Callable[[str], bool], on_folder: Callable[[str], None] | None = None
) -> Iterator[str]:
    """The paths of all files in `folder` and below, linked ones too, whose names `accept` accepts; in any order.

    on_folder: called with the path of each folder before the folder is listed.
    """
    parent = Path(os.path.realpath(folder.parent))
    visited = {str(path) for path in (parent, *parent.parents, *Path(os.path.realpath(folder)).parents)}
    pending = [str(folder)]
    while pending:
        path = pending.pop()
        real_path = os.path.realpath(path)
        if real_path in visited:
            continue
        visited.add(real_path)
        if on_folder is not None:
            on_folder(path)
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir():
                    pending += [] if is_hidden(entry.name) else [entry.path]
                # a broken link is yielded too, so that it is reported as an unreadable image
                elif accept(entry.name) and (entry.is_file() or entry.is_symlink()):
                    yield entry.path


def is_image(name: str) -> bool:
    """Whether a file name is that of an image."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


def is_hidden(name: str) -> bool:
    """Whether a name starts with a dot. One that starts with two dots is not hidden: a class may have it."""
    return name.startswith(".") and not name.startswith("..")
