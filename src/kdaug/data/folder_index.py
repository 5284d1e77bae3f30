"""The index of an image folder: classes and image paths, cached on disk until a sub-folder's mtime changes."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaug.data.formats import ending, is_image, is_system_file, is_system_folder, readable_extensions
from kdaug.storage import cache_path, read_cache, write_cache

_CACHE_VERSION = "3"
_RUN_FILES = frozenset(("recipe.yaml", "metrics.jsonl"))
"""A folder that has both holds runs of kdaug, not images of a class."""
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
    mtimes: modification time (ns) of each folder that was scanned, by its path relative to the folder. empty: the
    sub-folders without images, each with the number of its files by ending. passed_over: the number of files that are
    not images by ending, in the classes. loose: the number of images that are directly in the folder, in no class.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    names: bytes
    mtimes: dict[str, int]
    empty: dict[str, dict[str, int]]
    passed_over: dict[str, int]
    loose: int

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
        header = {name: value for name, value in asdict(index).items() if name != "names"}
        arrays = {"header": np.array(json.dumps(header)), "names": np.frombuffer(index.names, np.uint8)}
        write_cache(cache_file, _cache_state(), arrays)
    return index


def _cache_state() -> str:
    """What a cached index depends on beside the folder: a Pillow plugin makes more files readable."""
    return " ".join((_CACHE_VERSION, *sorted(readable_extensions())))


def _read_cached_index(folder: Path, cache_file: Path | None) -> FolderIndex | None:
    """The cached index; None if there is none, or if one of its folders has gone or was modified."""
    arrays = read_cache(cache_file, _cache_state())
    if arrays is None:
        return None
    header = json.loads(str(arrays["header"]))
    try:
        if any(os.stat(folder / path).st_mtime_ns != mtime for path, mtime in header["mtimes"].items()):
            return None
    except OSError:
        return None
    classes, counts = tuple(header.pop("classes")), tuple(header.pop("counts"))
    return FolderIndex(classes, counts, arrays["names"].tobytes(), **header)


class _ClassFiles:
    """Accepts the images of a class folder, and counts its other files by ending."""

    def __init__(self) -> None:
        self.others, self._run_files = Counter[str](), set[str]()

    def accept(self, name: str) -> bool:
        if is_image(name):
            return True
        if not is_system_file(name):
            self.others[ending(name)] += 1
        self._run_files |= _RUN_FILES & {name}
        return False

    @property
    def has_runs(self) -> bool:
        return self._run_files == _RUN_FILES


def scan_folder(folder: Path) -> FolderIndex:
    """Scans `folder` recursively and follows links, but enters no folder twice and none that contains `folder`."""
    classes, counts, names = [], [], list[bytes]()
    empty, passed_over = dict[str, dict[str, int]](), Counter[str]()
    mtimes = {"": folder.stat().st_mtime_ns}
    prefix_length = len(str(folder / "x")) - 1  # of the paths below `folder`: that of "." is empty

    def record_mtime(path: str) -> None:
        mtimes[path[prefix_length:]] = os.stat(path).st_mtime_ns

    for class_folder in subfolders(folder):
        files = _ClassFiles()
        paths = sorted(files_under(class_folder, files.accept, record_mtime))
        if files.has_runs:
            continue
        if not paths:
            if not _contains(class_folder, folder):
                empty[class_folder.name] = dict(files.others)
            continue
        classes.append(class_folder.name)
        counts.append(len(paths))
        names += (os.fsencode(path[prefix_length:]) for path in paths)
        passed_over += files.others
    loose = count_loose_images(folder)
    return FolderIndex(tuple(classes), tuple(counts), b"\0".join(names), mtimes, empty, dict(passed_over), loose)


def _contains(link: Path, folder: Path) -> bool:
    """Whether the sub-folder `link` of `folder` is a link to it or to a folder that contains it."""
    target, real_folder = os.path.realpath(link), os.path.realpath(folder)
    return os.path.commonpath((target, real_folder)) == target


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted by name, without hidden ones (.git) and those of the system (@eaDir)."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not is_system_folder(entry.name) and _is_folder(entry)]
    return sorted(folder / name for name in names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one. A circular link is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def count_loose_images(folder: Path) -> int:
    """The number of images directly in `folder`, which belong to no class."""
    with os.scandir(folder) as entries:
        return sum(is_image(entry.name) and not _is_folder(entry) for entry in entries)


def count_images(folder: Path) -> int:
    """The number of images in `folder` and below."""
    return sum(1 for _ in files_under(folder, is_image))


def has_images(folder: Path) -> bool:
    """Whether there is an image in `folder` or below."""
    return next(files_under(folder, is_image), None) is not None


def files_under(
    folder: Path, accept: Callable[[str], bool], on_folder: Callable[[str], None] | None = None
) -> Iterator[str]:
    """The paths of all files in `folder` and below, linked ones too, whose names `accept` accepts; in any order.

    on_folder: called with the path of each folder before the folder is listed.
    """
    parent = Path(os.path.realpath(os.path.dirname(os.path.abspath(folder))))  # of ".", too
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
                if _is_folder(entry):
                    pending += [] if is_system_folder(entry.name) else [entry.path]
                # a broken link is yielded too, so that it is reported as an unreadable image
                elif accept(entry.name) and (entry.is_file() or entry.is_symlink()):
                    yield entry.path
