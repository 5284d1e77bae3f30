"""The index of WebDataset shards: key, position and label of each sample; cached until a shard is modified."""

from __future__ import annotations

import json
import logging
import os
import posixpath
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.data.formats import is_hidden, is_system_folder, readable_extensions
from kdaug.errors import InputError
from kdaug.storage import cache_path, read_cache, write_cache

_logger = logging.getLogger(__name__)
NO_LABEL = -1
_CACHE_VERSION = 2
_MIN_SAMPLES_TO_CACHE = 1_000
"""The index of fewer samples is not cached: a scan is fast."""
_COLUMNS = ("key", "shard", "offset", "size", "label")
_SHARDS_PER_MESSAGE = 100


@dataclass(frozen=True)
class ShardMember:
    """The image of the sample `key`: `size` bytes at `offset` in the tar file `shard`."""

    shard: Path
    key: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}:{self.key}"

    def read_bytes(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Samples:
    """The samples of `shards` (paths relative to `root`). The columns are int64 [N], except key: bytes [N].

    shard: the position in `shards` of the tar file that has the sample. offset, size: of its image in that file, in
    bytes. label: from its .cls member, or NO_LABEL.
    """

    root: Path
    shards: tuple[str, ...]
    key: NDArray[np.bytes_]
    shard: NDArray[np.int64]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.key)

    def __getitem__(self, row: int) -> ShardMember:
        shard = self.root / self.shards[self.shard[row]]
        return ShardMember(shard, os.fsdecode(self.key[row]), int(self.offset[row]), int(self.size[row]))

    def take(self, rows: NDArray[np.int64]) -> Samples:
        """The samples at `rows`."""
        columns = (column[rows] for column in (self.shard, self.offset, self.size, self.label))
        return Samples(self.root, self.shards, self.key[rows], *columns)


def load_samples(root: Path, shards: tuple[str, ...]) -> Samples:
    """All samples of `shards`, sorted by key and then by shard: from the cached index if it is valid, else from a scan.

    Raises InputError if a shard cannot be read, a sample is invalid, or there is no image.
    """
    cache_file = cache_path(root, "shards")
    state = json.dumps(
        [_CACHE_VERSION, sorted(readable_extensions()), *(_file_version(root / shard, shard) for shard in shards)]
    )
    columns = read_cache(cache_file, state)
    if columns is None:
        columns = _scan_shards(root, shards)
        if len(columns["key"]) >= _MIN_SAMPLES_TO_CACHE:
            write_cache(cache_file, state, columns)
    if not len(columns["key"]):
        raise InputError(f"the shards in {root} have no images")
    return Samples(root, shards, **columns)


def _file_version(path: Path, shard: str) -> tuple[str, int, int]:
    """(name, size, modification time in ns) of a shard."""
    try:
        stat = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return shard, stat.st_size, stat.st_mtime_ns


def _unreadable(shard: Path, reason: object) -> InputError:
    return InputError(f"shard {shard} cannot be read ({reason})", "replace it with a complete, uncompressed tar file")


def _scan_shards(root: Path, shards: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The columns of `Samples`, sorted by key, then by shard."""
    rows: list[tuple[bytes, int, int, int, int]] = []
    for number, shard in enumerate(shards):
        rows += ((key, number, offset, size, label) for key, offset, size, label in _scan_shard(root / shard))
        if (number + 1) % _SHARDS_PER_MESSAGE == 0:
            _logger.info("scanned %d shards with %s samples", number + 1, f"{len(rows):,}")
    rows.sort()
    keys, *numbers = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    columns = np.array(keys, np.bytes_), *(np.array(column, np.int64) for column in numbers)
    return dict(zip(_COLUMNS, columns, strict=True))


def _scan_shard(shard: Path) -> Iterator[tuple[bytes, int, int, int]]:
    """(key, offset of the image, size of the image, label) of each sample in the tar file `shard`.

    A key ends at the first dot of the file name, as in WebDataset; in a shard without .cls members at the last.
    """
    try:
        members, labels = _read_members(shard)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise _unreadable(shard, error) from None
    images = dict[str, tuple[int, int]]()
    for name, offset, size in members:
        key, extension = _split_name(name, str.partition if labels else str.rpartition)
        if extension in readable_extensions():
            if key in images:
                raise InputError(f"{shard}:{key} has two images, but a sample must have one")
            images[key] = (offset, size)
    for key, (offset, size) in images.items():
        yield os.fsencode(key), offset, size, labels.get(key, NO_LABEL)


def _read_members(shard: Path) -> tuple[list[tuple[str, int, int]], dict[str, int]]:
    """((name, offset, size) of each file in `shard`, label of each key that has a .cls member)."""
    members, labels, end = list[tuple[str, int, int]](), dict[str, int](), 0
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            name = posixpath.normpath(member.name)
            if not member.isfile() or _is_system_member(name):
                continue
            key, extension = _split_name(name, str.partition)
            if extension == ".cls":
                file = tar.extractfile(member)
                labels[key] = _parse_label(file.read() if file else b"", shard, key)
            elif extension.endswith(".cls"):
                raise InputError(f"{shard}:{name}: the name of a label must have one dot, as KEY.cls")
            members.append((name, member.offset_data, member.size))
    _check_end(shard, end)
    return members, labels


def _is_system_member(name: str) -> bool:
    """Whether a member is hidden, or in a folder that an operating system adds (__MACOSX, @eaDir)."""
    *folders, file = name.split("/")
    return is_hidden(file) or any(is_system_folder(folder) and not is_hidden(folder) for folder in folders)


def _split_name(name: str, partition: Callable[[str, str], tuple[str, str, str]]) -> tuple[str, str]:
    """(key, extension in lower case with its dot). partition: str.partition (at the first dot) or str.rpartition."""
    folder, file = posixpath.split(name)
    stem, dot, extension = partition(file, ".")
    return posixpath.join(folder, stem), (dot + extension).lower()


def _check_end(shard: Path, end: int) -> None:
    """Raises ReadError unless only zeros, at least one block, follow the last member, which ends at byte `end`.

    tarfile takes a damaged header, and the end of a truncated file, for the end of the archive.
    """
    if shard.stat().st_size < end + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is truncated")
    with shard.open("rb") as file:
        file.seek(end)
        while rest := file.read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"it is damaged at byte {end}, or another archive is appended there")


def _parse_label(content: bytes, shard: Path, key: str) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 9:
        raise InputError(f"{shard}:{key}.cls is {content[:20]!r}, but must be the number of a class, from 0")
    return int(text)
