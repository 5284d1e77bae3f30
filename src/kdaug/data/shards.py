"""WebDataset shards: tar files in which the image and the label of a sample have the same key.

The shards are indexed once, then samples are read at random positions. So order, views, distributed training and exact
resuming are as for all other datasets. As samples are sorted by key, their distribution over shards changes nothing.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaug import config
from kdaug.data.folder_index import files_under
from kdaug.data.formats import is_hidden
from kdaug.data.images import (
    TRAIN_NAMES,
    VAL_NAMES,
    Dataset,
    EncodedImages,
    Labels,
    describe_hold_out,
    digest,
    encoded_dataset,
    split_off_validation,
)
from kdaug.data.shard_index import NO_LABEL, Samples, load_samples
from kdaug.errors import InputError

CLASS_NAMES = "classes.txt"
_COMPRESSED = (".tar.gz", ".tgz", ".tar.zst")


def load_shards(settings: config.Data, val_fraction: float | None) -> Dataset:
    """The dataset in the shards (*.tar) below the folder `settings.root`.

    A shard is for validation if its path contains one of VAL_NAMES as a word (the first of these that any shard has),
    but not train or training. If there is none, `val_fraction` of each class is held out, always the same samples;
    None: all samples are in both splits. A sample is an image and, with the same key, its class number in a .cls
    member; without .cls members, its class is the folder in its key. An optional classes.txt in `settings.root` names
    the classes, one a line. Raises InputError if a shard cannot be read or a sample does not follow these rules.
    """
    root = Path(settings.root)
    shards = _find_shards(root)
    splits = {shard: _split_of(shard) for shard in shards}
    val_name = next((name for name in VAL_NAMES if name in splits.values()), None)
    samples = load_samples(root, tuple(shard for shard in shards if splits[shard] in ("train", val_name)))
    is_val = np.array([splits[shard] == val_name for shard in samples.shards])[samples.shard]
    if is_val.all():
        raise InputError(f"all shards in {root} are for validation, by their names; training shards are missing")
    classes, labels = _classes_and_labels(samples, ~is_val, root)
    if is_val.any():
        train_rows, val_rows = np.flatnonzero(~is_val), np.flatnonzero(is_val)
        source = f"the shards named {val_name}"
    else:
        names = samples.key.tolist()
        train_rows, val_rows = split_off_validation(labels, names, classes, val_fraction, f"shards in {root}")
        source = describe_hold_out(val_fraction)
    images = EncodedImages(samples, labels, _sample_ids(samples, ~is_val))
    content = digest("\n".join(classes).encode(), is_val, b"\0".join(samples.key.tolist()), labels, samples.size)
    unused = [shard for shard in shards if splits[shard] not in ("train", val_name)]
    passed_over = [f"{len(unused):,} shard(s) of other splits, first {unused[0]}"] if unused else []
    train, val = images.subset(train_rows), images.subset(val_rows)
    return encoded_dataset(settings, classes, train, val, content, source, passed_over)


def _find_shards(root: Path) -> list[str]:
    """The paths, relative to `root`, of all shards in it and below, sorted."""
    if not root.is_dir():
        raise InputError(f"folder {root} of shards does not exist", "give it with data.root")
    endings = (".tar", *_COMPRESSED)
    paths = files_under(root, lambda name: name.endswith(endings) and not is_hidden(name))
    files = sorted(Path(path).relative_to(root).as_posix() for path in paths)
    shards = [file for file in files if not file.endswith(_COMPRESSED)]
    if not shards and files:
        raise InputError(f"folder {root} has compressed shards only, such as {files[0]}", "decompress them to .tar")
    if not shards:
        raise InputError(f"folder {root} has no shards (*.tar)")
    return shards


def _split_of(shard: str) -> str:
    """train, or the first of VAL_NAMES that is a word of the shard's path."""
    words = set(re.split("[^a-z]+", shard.lower()))
    if not words.isdisjoint(TRAIN_NAMES):
        return "train"
    return next((name for name in VAL_NAMES if name in words), "train")


def _sample_ids(samples: Samples, is_train: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`EncodedImages.ids`: a hash of each sample's key; of shard name and key if training samples share the key."""
    keys, rows = samples.key.tolist(), np.flatnonzero(is_train)
    is_repeated = np.concatenate([[False], samples.key[rows][1:] == samples.key[rows][:-1], [False]])  # sorted by key
    for row in rows[is_repeated[1:] | is_repeated[:-1]].tolist():
        keys[row] = os.fsencode(samples.shards[samples.shard[row]]) + b"/" + keys[row]
    return np.array([int.from_bytes(hashlib.blake2b(key, digest_size=8).digest()) >> 1 for key in keys], np.int64)


def _classes_and_labels(samples: Samples, is_train: NDArray[np.bool_], root: Path) -> tuple[tuple[str, ...], Labels]:
    """The class names, and the label of each sample."""
    has_label = samples.label != NO_LABEL
    if has_label.all():
        labels = samples.label
        classes = _read_class_names(root / CLASS_NAMES) or _class_numbers(samples, is_train)
    elif not has_label.any():
        classes, labels = _folder_classes(samples, is_train)
    else:
        raise InputError(f"{samples[int(np.argmin(has_label))]} has no .cls member, but other samples have one")
    unknown = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(unknown):
        raise InputError(f"{samples[int(unknown[0])]} has a class that is not among the {len(classes)} known ones")
    if len(classes) < 2:
        raise InputError(f"the shards in {root} have one class only", "training needs at least two")
    return classes, labels


def _folder_classes(samples: Samples, is_train: NDArray[np.bool_]) -> tuple[tuple[str, ...], Labels]:
    """Classes that are the last folders of the keys. The label of a class without training samples is len(classes)."""
    folders = [posixpath.basename(posixpath.dirname(os.fsdecode(key))) for key in samples.key.tolist()]
    classes = tuple(sorted({folder for folder, train in zip(folders, is_train.tolist(), strict=True) if train}))
    if "" in classes:
        sample = samples[folders.index("")]
        raise InputError(
            f"{sample} has no label", "add a .cls member with the same key, or put its class folder into the key"
        )
    label_of = {name: label for label, name in enumerate(classes)}
    return classes, np.array([label_of.get(folder, len(classes)) for folder in folders])


def _class_numbers(samples: Samples, is_train: NDArray[np.bool_]) -> tuple[str, ...]:
    """The labels of the training samples as class names; InputError if they are not 0, 1, 2, ... without gaps."""
    numbers = np.unique(samples.label[is_train])
    if numbers[-1] != len(numbers) - 1:
        row = int(np.flatnonzero(samples.label == numbers[-1])[0])
        raise InputError(
            f"{samples[row]} is of class {numbers[-1]}, but the training samples have only {len(numbers)} classes",
            f"number the classes from 0 without gaps, or name all of them in {CLASS_NAMES}",
        )
    return tuple(str(number) for number in numbers.tolist())


def _read_class_names(path: Path) -> tuple[str, ...]:
    """The lines of a file, which must be different and not empty; () if the file does not exist."""
    if not path.is_file():
        return ()
    try:
        names = tuple(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    except ValueError:
        raise InputError(f"{path} is not UTF-8 text", "save it as UTF-8") from None
    if "" in names:
        raise InputError(f"{path} has an empty line", "write one class name in each line")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has the class {repeated!r} twice", "write each class name once")
    return names
