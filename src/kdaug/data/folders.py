"""Image folders: one sub-folder per class, with or without a split into train/ and val/."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kdaug import config
from kdaug.data.folder_index import FilePaths, FolderIndex, has_images, load_index, subfolders
from kdaug.data.formats import describe_endings
from kdaug.data.images import (
    Dataset,
    EncodedImages,
    Labels,
    describe_hold_out,
    digest,
    encoded_dataset,
    split_off_validation,
)
from kdaug.data.split_folders import find_splits
from kdaug.errors import InputError

_Split = tuple[FilePaths, Labels]


@dataclass(frozen=True)
class _Splits:
    """The splits of an image folder. val_source, passed_over: as in `Dataset`."""

    classes: tuple[str, ...]
    train: _Split
    val: _Split
    val_source: str
    passed_over: list[str]


def load_folder(settings: config.Data, val_fraction: float | None) -> Dataset:
    """The dataset in folder `settings.root`: train/ and val/ (or other names, see `find_splits`), or the class folders
    directly.

    A train/ folder without sub-folders of images is a class like any other. Without a split, `val_fraction` of each
    class is held out for validation, always the same images; None: all images are in both splits. Raises InputError if
    a folder is missing, empty or unreadable, if there is only one class or a class without images, if there is a val/
    but no train/, or if val/ has a class that train/ lacks.
    """
    root = Path(settings.root)
    try:
        splits = _read_splits(root, val_fraction)
    except OSError as error:
        raise InputError(f"image folder {error.filename} cannot be read ({error.strerror})") from None
    content = _content(root, splits.classes, splits.train, splits.val)
    train, val = EncodedImages(*splits.train), EncodedImages(*splits.val)
    return encoded_dataset(settings, splits.classes, train, val, content, splits.val_source, splits.passed_over)


def _read_splits(root: Path, val_fraction: float | None) -> _Splits:
    if not root.is_dir():
        raise InputError(f"image folder {root} does not exist", "give it with data.root")
    folders = find_splits(root)
    index = _read_classes(folders.train)
    classes, files, labels = index.classes, index.paths(folders.train), index.labels
    if len(classes) < 2:
        inner = folders.train / classes[0]
        is_nested = sum(has_images(folder) for folder in subfolders(inner)) > 1
        hint = f"; if its sub-folders are the classes, set data.root to {inner}" if is_nested else ""
        raise InputError(
            f"image folder {folders.train} has one class only ({classes[0]})", f"training needs at least two{hint}"
        )
    if folders.val is None:
        names = [b"/".join(name.split(b"/")[-2:]) for name in files.names()]
        source = f"image folder {folders.train}"
        both = split_off_validation(labels, names, classes, val_fraction, source)
        train, val = ((files.take(rows), labels[rows]) for rows in both)
        passed_over = [*folders.unused, *_passed_over(root, {folders.train: index})]
        return _Splits(classes, train, val, describe_hold_out(val_fraction), passed_over)
    val_index = _read_classes(folders.val, allow_empty=True)
    unknown = sorted(set(val_index.classes) - set(classes))
    if unknown:
        raise InputError(
            f"image folder {folders.val}: class {unknown[0]!r} is not among the classes of {folders.train}"
        )
    label_of_val_class = np.array([classes.index(name) for name in val_index.classes])
    val = val_index.paths(folders.val), label_of_val_class[val_index.labels]
    passed_over = [*folders.unused, *_passed_over(root, {folders.train: index, folders.val: val_index})]
    return _Splits(classes, (files, labels), val, f"from {_below(root, folders.val)}", passed_over)


def _read_classes(folder: Path, allow_empty: bool = False) -> FolderIndex:
    """The index of `folder`. Raises InputError if it has no images, or a sub-folder without images.

    allow_empty: whether a sub-folder may have no files at all; one with only files that cannot be read is an error.
    """
    index = load_index(folder)
    if not index.classes:
        loose = f", but {index.loose:,} directly in it" if index.loose else ""
        files = describe_endings(sum(map(Counter[str], index.empty.values()), Counter[str]()))
        found = f" (only {files})" if files else ""
        raise InputError(
            f"image folder {folder} has no images in sub-folders{found}{loose}; "
            "it needs one sub-folder of images per class"
        )
    wrong = {name: others for name, others in index.empty.items() if others or not allow_empty}
    if wrong:
        name, others = next(iter(wrong.items()))
        more = f", and {len(wrong) - 1} other class(es) have none" if len(wrong) > 1 else ""
        found = f" (only {describe_endings(others)})" if others else ""
        raise InputError(
            f"class {name} of image folder {folder} has no readable images{found}{more}",
            "add images that Pillow can read, or move the folder elsewhere if it is not a class",
        )
    return index


def _passed_over(root: Path, indices: dict[Path, FolderIndex]) -> list[str]:
    """What is not used in the folders of the splits, for messages."""
    notes = [
        f"{index.loose:,} image(s) directly in {_below(root, folder)}"
        for folder, index in indices.items()
        if index.loose
    ]
    notes += [f"{_below(root, folder)}{name}/ (no images)" for folder, index in indices.items() for name in index.empty]
    others = sum((Counter(index.passed_over) for index in indices.values()), Counter[str]())
    return [*notes, *([describe_endings(others)] if others else [])]


def _below(root: Path, folder: Path) -> str:
    """`folder` for messages: relative to `root`, with a slash."""
    return str(root) if folder == root else f"{folder.relative_to(root)}/"


def _content(root: Path, classes: tuple[str, ...], train: _Split, val: _Split) -> str:
    """`Dataset.content` of image files: a digest of the split, path below `root` and class of each."""
    suffixes = [b"\0" + os.fsencode(name) for name in classes]
    lines: list[bytes] = []
    for split, (files, labels) in ((b"train\0", train), (b"val\0", val)):
        prefix = split + b"".join(os.fsencode(part) + b"/" for part in files.root.parts[len(root.parts) :])
        lines += (prefix + name + suffixes[label] for name, label in zip(files.names(), labels.tolist(), strict=True))
    return digest(b"\0".join(sorted(lines)))
