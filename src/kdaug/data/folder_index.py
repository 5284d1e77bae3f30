"""Which images lie in a folder of class folders: noted on disk, since a million files take long to look through.

A note holds good as long as no folder below has been changed, which the file system says in each folder's time.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from kdaug.storage import atomic_write, cache_path

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .tga .ico".split()
)
_VERSION = 1
_MIN_FILES_TO_CACHE = 1_000
"""Images from which on a folder is noted; fewer are looked through in no time."""
_SETTLE_SECONDS = 2.0
"""Seconds: a folder changed later than that before it was looked through may change again within the same tick."""


class FilePaths(Sequence[Path]):
    """Paths below `root`, made when they are asked for: a million of them take no room and no time before that.

    names: the paths below root as the file system has them, one after the other; name i is names[starts[i]:ends[i]].
    """

    def __init__(self, root: Path, names: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        self.root, self._names, self._starts, self._ends = root, names, starts, ends

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> FilePaths: ...
    def __getitem__(self, index: int | slice) -> Path | FilePaths:
        if isinstance(index, slice):
            return FilePaths(self.root, self._names, self._starts[index], self._ends[index])
        return self.root / os.fsdecode(self._names[self._starts[index] : self._ends[index]])

    @classmethod
    def joined(cls, root: Path, names: bytes, count: int) -> FilePaths:
        """The `count` paths below root that `names` are, separated by zero bytes."""
        ends = np.append(np.flatnonzero(np.frombuffer(names, np.uint8) == 0), len(names))[:count]
        return cls(root, names, np.append(0, ends[:-1] + 1)[:count], ends)

    def names(self) -> list[bytes]:
        """The paths below root, with slashes, in the file system's bytes."""
        return [self._names[start:end] for start, end in zip(self._starts.tolist(), self._ends.tolist(), strict=True)]

    def take(self, rows: NDArray[np.int64]) -> FilePaths:
        """Those at `rows`."""
        return FilePaths(self.root, self._names, self._starts[rows], self._ends[rows])


@dataclass(frozen=True)
class FolderIndex:
    """The classes (sub-folders with images, sorted by name) of a folder, and the images of each, sorted by path.

    counts: images of each class. names: their paths below the folder, separated by zero bytes. folders: every folder
    looked into, below the folder, with the time (ns) of its last change.
    """

    classes: tuple[str, ...]
    counts: tuple[int, ...]
    names: bytes
    folders: dict[str, int]

    def paths(self, folder: Path) -> FilePaths:
        """The images' paths, class after class, `folder` being where the folder is now."""
        return FilePaths.joined(folder, self.names, sum(self.counts))

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of each image, int64 [N]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)


def load_index(folder: Path) -> FolderIndex:
    """What lies in `folder`, from an earlier call's note if nothing has changed; OSError if it cannot be read."""
    note = cache_path(folder, "folders")
    noted = _read(note)
    if noted is not None and _is_current(noted, folder):
        return noted
    began = time.time_ns()
    found = scan_folder(folder)
    settled = max(found.folders.values()) < began - _SETTLE_SECONDS * 1e9
    if sum(found.counts) >= _MIN_FILES_TO_CACHE and settled:
        with suppress(OSError):  # without the note the next start takes longer, no more
            _write(note, found)
    return found


def scan_folder(folder: Path) -> FolderIndex:
    """Looks into `folder` and all below it, linked folders too; none is entered twice, and none above `folder`."""
    classes, counts, names = [], [], list[bytes]()
    folders = {"": folder.stat().st_mtime_ns}
    start = len(os.path.join(folder, ""))
    for sub in subfolders(folder):
        found = sorted(images_under(sub, folders, start))
        if found:
            classes.append(sub.name)
            counts.append(len(found))
            names += (os.fsencode(name[start:]) for name in found)
    return FolderIndex(tuple(classes), tuple(counts), b"\0".join(names), folders)


def subfolders(folder: Path) -> list[Path]:
    """The folders in `folder`, by name, without a tool's (.git, .ipynb_checkpoints)."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))


def images_under(folder: Path, folders: dict[str, int] | None = None, start: int = 0) -> Iterator[str]:
    """The images in `folder` and its sub-folders, as `files_under`."""
    return files_under(folder, is_image, folders, start)


def files_under(
    folder: Path, wanted: Callable[[str], bool], folders: dict[str, int] | None = None, start: int = 0
) -> Iterator[str]:
    """The files with a name that is `wanted` in `folder` and its sub-folders, linked ones too, in any order.

    Every folder entered is added to `folders`, by its path from character `start` on, with the time of its last change.
    """
    outside = Path(os.path.realpath(folder.parent))
    entered = {str(path) for path in (outside, *outside.parents, *Path(os.path.realpath(folder)).parents)}
    waiting = [str(folder)]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(place)
        if real in entered:
            continue
        entered.add(real)
        if folders is not None:
            folders[place[start:]] = os.stat(place).st_mtime_ns
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting += [] if is_hidden(entry.name) else [entry.path]
                elif wanted(entry.name) and (
                    entry.is_file() or entry.is_symlink()
                ):  # a dead link is missed later, by name
                    yield entry.path


def is_image(name: str) -> bool:
    """Whether a file is an image by its name."""
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not name.startswith(".")


def is_hidden(name: str) -> bool:
    """Whether a folder is one of a tool's; a name that begins with ".." is just odd."""
    return name.startswith(".") and not name.startswith("..")


def _is_current(noted: FolderIndex, folder: Path) -> bool:
    """Whether every folder is there and was last changed when it was noted."""
    try:
        return all(os.stat(folder / place).st_mtime_ns == changed for place, changed in noted.folders.items())
    except OSError:
        return False


def _write(note: Path, index: FolderIndex) -> None:
    """A line with the checksum of what follows, a line of JSON, then the names."""
    about = {"version": _VERSION, "classes": index.classes, "counts": index.counts, "folders": index.folders}
    head = json.dumps(about).encode() + b"\n"
    note.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(note, hashlib.sha256(head + index.names).hexdigest().encode() + b"\n" + head + index.names)


def _read(note: Path) -> FolderIndex | None:
    """The index noted there; None if there is none, or not a whole one of this version."""
    try:
        checksum, _, rest = note.read_bytes().partition(b"\n")
    except OSError:
        return None
    if hashlib.sha256(rest).hexdigest().encode() != checksum:
        return None
    head, _, names = rest.partition(b"\n")
    about: dict[str, Any] = json.loads(head)
    if about["version"] != _VERSION:
        return None
    return FolderIndex(tuple(about["classes"]), tuple(about["counts"]), names, about["folders"])
