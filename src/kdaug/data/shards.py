"""WebDataset shards: tar files in which a sample's image and label stand under one key.

The shards are looked through once, and every sample is then read from its place. So order, views, many ranks and exact
resuming are those of all other sets; and since samples are sorted by their keys and views drawn by them, they are also
the same however the samples are spread over shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug import config
from kdaug.data.folder_index import EXTENSIONS, files_under, is_hidden
from kdaug.data.folders import DEFAULT_SIZE, IMAGENET_MEAN, IMAGENET_STD, TRAIN_NAMES, VAL_NAMES
from kdaug.data.images import Dataset, EncodedImages, digest, hold_out
from kdaug.errors import InputError
from kdaug.storage.atomic import atomic_write
from kdaug.storage.cache import cache_path

CLASS_NAMES = "classes.txt"
_VERSION = 1
_MIN_FILES_TO_CACHE = 1_000
"""Samples from which on a set of shards is noted."""
_NO_LABEL = -1


@dataclass(frozen=True)
class ShardMember:
    """An image in a shard: `size` bytes from `offset` on, under `key`."""

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
    """The samples of `shards` (names below a folder `root`), all int64 [N] but the keys, which are bytes [N].

    shard: which of them holds it. offset, size: of its image there, in bytes. label: from its .cls; -1: it has none.
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
        """Those at `rows`."""
        numbers = (column[rows] for column in (self.shard, self.offset, self.size, self.label))
        return Samples(self.root, self.shards, self.key[rows], *numbers)


def load_shards(settings: config.Data) -> Dataset:
    """The data set in the shards (*.tar) below folder `settings.root`.

    Shards whose path holds the word val, valid, validation or test (the first of these that occurs) and not train or
    training are for validation; without any, `settings.val_fraction` of each class is held out, the same samples every
    time. A sample is an image and, under the same key, its class as a whole number in a .cls file; without .cls files
    the folder in the key is its class. classes.txt in `settings.root` may name the classes, a line each. Raises
    InputError for what cannot be read or does not fit together.
    """
    root = Path(settings.root)
    shards = _shards_below(root)
    splits = {shard: _split_of(shard) for shard in shards}
    val_name = next((name for name in VAL_NAMES if name in splits.values()), None)
    samples = _samples(root, tuple(shard for shard in shards if splits[shard] in ("train", val_name)))
    is_val = np.array([splits[shard] == val_name for shard in samples.shards])[samples.shard]
    if is_val.all():
        raise InputError(f"all shards in {root} are for validation by their names; those for training are missing")
    classes, labels = _classes(samples, ~is_val, root)
    images = EncodedImages(samples, labels, _view_keys(samples, ~is_val))
    if is_val.any():
        train, val = images.subset(np.flatnonzero(~is_val)), images.subset(np.flatnonzero(is_val))
    else:
        train, val = hold_out(images, samples.key.tolist(), classes, settings.val_fraction, f"shards in {root}")
    side = settings.image_size or DEFAULT_SIZE
    content = digest("\n".join(classes).encode(), is_val, b"\0".join(samples.key.tolist()), labels, samples.size)
    return Dataset(root.name, classes, train, val, (side, side), IMAGENET_MEAN, IMAGENET_STD, content)


def _shards_below(root: Path) -> list[str]:
    """The shards in folder `root` and below, by their paths from there."""
    if not root.is_dir():
        raise InputError(f"folder {root} of shards does not exist; give it with --data.root")
    packings = (".tar.gz", ".tgz", ".tar.zst")
    endings = (".tar", *packings)
    found = files_under(root, lambda name: name.endswith(endings) and not is_hidden(name))
    files = sorted(Path(file).relative_to(root).as_posix() for file in found)
    shards = [file for file in files if not file.endswith(packings)]
    if not shards:
        way_out = f"unpack {files[0]} and its like: samples are read from their places" if files else "it needs *.tar"
        raise InputError(f"folder {root} holds no shards; {way_out}")
    return shards


def _split_of(shard: str) -> str:
    """train, or the first of VAL_NAMES that is a word of the shard's path."""
    words = set(re.split("[^a-z]+", shard.lower()))
    if not words.isdisjoint(TRAIN_NAMES):
        return "train"
    return next((name for name in VAL_NAMES if name in words), "train")


def _view_keys(samples: Samples, is_train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What the views are drawn by: the keys; of samples for training that share one, their shards' names as well."""
    keys, rows = samples.key.tolist(), np.flatnonzero(is_train)
    again = np.concatenate([[False], samples.key[rows][1:] == samples.key[rows][:-1], [False]])  # they are sorted
    for row in rows[again[1:] | again[:-1]].tolist():
        keys[row] = os.fsencode(samples.shards[samples.shard[row]]) + b"/" + keys[row]
    return np.array([int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1 for key in keys], np.int64)


def _classes(samples: Samples, is_train: NDArray[np.bool_], root: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of the classes, and which each sample is of."""
    labelled = samples.label != _NO_LABEL
    if labelled.all():
        labels, names = samples.label, _read_names(root / CLASS_NAMES) or _numbers(samples, is_train)
    elif not labelled.any():
        folders = [posixpath.basename(posixpath.dirname(os.fsdecode(key))) for key in samples.key.tolist()]
        names = tuple(sorted({folder for folder, known in zip(folders, is_train.tolist(), strict=True) if known}))
        places = {name: place for place, name in enumerate(names)}
        labels = np.array([places.get(folder, len(names)) for folder in folders])
        if "" in places:
            raise InputError(f"{samples[folders.index('')]} has no label: a .cls beside it, or a folder in its key")
    else:
        raise InputError(f"{samples[int(np.argmin(labelled))]} has no .cls beside it, but others have")
    foreign = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(foreign):
        raise InputError(f"{samples[int(foreign[0])]} is of a class that is not among the {len(names)} known")
    if len(names) < 2:
        raise InputError(f"the shards in {root} have one class only; there is nothing to tell apart")
    return names, labels


def _numbers(samples: Samples, is_train: NDArray[np.bool_]) -> tuple[str, ...]:
    """The numbers of the classes, as names; InputError if one is left out."""
    numbers = np.unique(samples.label[is_train])
    if numbers[-1] != len(numbers) - 1:
        last = int(np.flatnonzero(samples.label == numbers[-1])[0])
        raise InputError(
            f"{samples[last]} is of class {numbers[-1]}, but there are samples of {len(numbers)} classes only; number "
            f"them from 0 on without gaps, or name all classes in {CLASS_NAMES}"
        )
    return tuple(str(number) for number in numbers.tolist())


def _read_names(path: Path) -> tuple[str, ...]:
    """The lines of the file, none if it is not there."""
    if not path.is_file():
        return ()
    try:
        names = tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except ValueError:
        raise InputError(f"{path} is not UTF-8 text; save it as such") from None
    if len(set(names)) < len(names) or "" in names:
        twice = next(name for name in names if name == "" or names.count(name) > 1)
        raise InputError(f"{path} names a class {twice!r} twice or not at all; each line must name another one")
    return names


def _samples(root: Path, shards: tuple[str, ...]) -> Samples:
    """All samples of the shards, sorted by key; from an earlier call's note if no shard has changed."""
    note = cache_path(root, "shards")
    state = json.dumps([_VERSION, *(_state(root / shard, shard) for shard in shards)])
    columns = _read(note, state)
    if columns is None:
        columns = _look_through_all(root, shards)
        if len(columns["key"]) >= _MIN_FILES_TO_CACHE:
            with suppress(OSError):  # without the note the next start takes longer, no more
                _write(note, state, columns)
    if not len(columns["key"]):
        raise InputError(f"the shards in {root} hold no images")
    return Samples(root, shards, **columns)


def _state(path: Path, shard: str) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None
    return shard, found.st_size, found.st_mtime_ns


def _unreadable(shard: Path, reason: object) -> InputError:
    return InputError(f"shard {shard} cannot be read ({reason}); it must be a whole tar, not packed: fetch it again")


def _look_through_all(root: Path, shards: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The columns of `Samples`, sorted by key, then by shard."""
    rows: list[tuple[bytes, int, int, int, int]] = []
    total = 0
    for number, shard in enumerate(shards):
        found = list(_look_through(root / shard))
        total += len(found)
        rows += ((key, number, offset, size, label) for key, offset, size, label in found)
        if number % 100 == 99:
            print(f"kdaug: looked through {number + 1} shards, {total:,} samples ...", file=sys.stderr, flush=True)
    rows.sort()
    keys, *numbers = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    columns = (np.array(column, np.int64) for column in numbers)
    return {"key": np.array(keys, np.bytes_), **dict(zip(("shard", "offset", "size", "label"), columns, strict=True))}


def _look_through(shard: Path) -> Iterator[tuple[bytes, int, int, int]]:
    """Key, offset and size of the image, and label of each sample in the tar file `shard`.

    As WebDataset has it, a key ends at the first dot of the name; in a shard without .cls files at the last.
    """
    members, labels, end = list[tuple[str, int, int]](), dict[str, int](), 0
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                name = posixpath.normpath(member.name)
                key, extension = _split(name, last_dot=False)
                if not member.isfile() or is_hidden(posixpath.basename(name)):
                    continue
                if extension == ".cls":
                    content = tar.extractfile(member)
                    assert content is not None
                    labels[key] = _label(content.read(), shard, key)
                elif extension.endswith(".cls"):
                    raise InputError(f"{shard}:{name}: a label's name has one dot, as KEY.cls")
                members.append((name, member.offset_data, member.size))
        _check_end(shard, end)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise _unreadable(shard, error) from None
    images = dict[str, tuple[int, int]]()
    for name, offset, size in members:
        key, extension = _split(name, last_dot=not labels)
        if extension in EXTENSIONS:
            if key in images:
                raise InputError(f"{shard}:{key} has two images; a sample needs one")
            images[key] = (offset, size)
    for key, (offset, size) in images.items():
        yield os.fsencode(key), offset, size, labels.get(key, _NO_LABEL)


def _split(name: str, last_dot: bool) -> tuple[str, str]:
    """The key and, in small letters and with its dot, the extension."""
    folder, file = posixpath.split(name)
    stem, dot, extension = file.rpartition(".") if last_dot else file.partition(".")
    return posixpath.join(folder, stem), (dot + extension).lower()


def _check_end(shard: Path, end: int) -> None:
    """ReadError unless a block of zeros, and nothing else, follows the last member, which ends at byte `end`.

    For tarfile takes a damaged header, and the end of a file cut short, for the end of the archive.
    """
    if shard.stat().st_size < end + tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut short")
    with shard.open("rb") as file:
        file.seek(end)
        while rest := file.read(1 << 20):
            if rest.strip(b"\0"):
                raise tarfile.ReadError(f"it is damaged at byte {end}, or another archive begins there")


def _label(content: bytes, shard: Path, key: str) -> int:
    text = content.strip()
    if not text.isdigit() or len(text) > 9:
        raise InputError(f"{shard}:{key}.cls is {content[:20]!r}, but must be the number of a class, from 0 on")
    return int(text)


def _write(note: Path, state: str, columns: dict[str, NDArray[Any]]) -> None:
    content = io.BytesIO()
    np.savez(content, state=np.array(state), **columns)  # type: ignore[arg-type]
    note.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(note, content.getvalue())


def _read(note: Path, state: str) -> dict[str, NDArray[Any]] | None:
    """The columns noted for shards in `state`; None if there are none, or they are damaged (zip holds checksums)."""
    try:
        with np.load(io.BytesIO(note.read_bytes()), allow_pickle=False) as file:
            if str(file["state"]) != state:
                return None
            return {name: file[name] for name in ("key", "shard", "offset", "size", "label")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
