"""Image folders: one sub-folder per class, with or without a split into train/ and val/."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kdaug import config
from kdaug.data.folder_index import FilePaths, files_under, is_image, load_index, subfolders
from kdaug.data.images import (
    TRAIN_NAMES,
    VAL_NAMES,
    Dataset,
    EncodedImages,
    Labels,
    digest,
    encoded_dataset,
    split_off_validation,
)
from kdaug.errors import InputError

_Split = tuple[FilePaths, Labels]


def load_folder(settings: config.Data) -> Dataset:
    """The dataset in folder `settings.root`: train/ and val/ (or training/, valid/, validation/, test/),
    or the class folders directly.

    A train/ folder without sub-folders of images is a class like any other. Without a split, `settings.val_fraction` of
    each class is held out for validation, always the same images. Raises InputError if a folder is missing, empty or
    unreadable, if there is only one class, if there is a val/ but no train/, or if val/ has a class that train/ lacks.
    """
    root = Path(settings.root)
    try:
        classes, train, val = _read_splits(root, settings.val_fraction)
    except OSError as error:
        raise InputError(f"image folder {error.filename} cannot be read ({error.strerror})") from None
    content = _content(root, classes, train, val)
    return encoded_dataset(settings, classes, EncodedImages(*train), EncodedImages(*val), content)


def _read_splits(root: Path, val_fraction: float) -> tuple[tuple[str, ...], _Split, _Split]:
    """(classes, training split, validation split) of `root`."""
    if not root.is_dir():
        raise InputError(f"image folder {root} does not exist", "give it with data.root")
    train_folder = _find_subfolder(root, TRAIN_NAMES)
    if train_folder is not None and not _has_classes(train_folder):
        train_folder = None
    source = train_folder or root
    classes, files, labels = _read_classes(source)
    if train_folder is None and {name.lower() for name in classes} <= {*TRAIN_NAMES, *VAL_NAMES}:
        raise InputError(f"image folder {root} has no train/ with one sub-folder per class, only {', '.join(classes)}")
    if len(classes) < 2:
        raise InputError(f"image folder {source} has one class only ({classes[0]})", "training needs at least two")
    val_folder = _find_subfolder(root, VAL_NAMES)
    if train_folder is None or val_folder is None:
        names = [b"/".join(name.split(b"/")[-2:]) for name in files.names()]
        train_rows, val_rows = split_off_validation(labels, names, classes, val_fraction, f"image folder {source}")
        train, val = ((files.take(rows), labels[rows]) for rows in (train_rows, val_rows))
        return classes, train, val
    val_classes, val_files, val_labels = _read_classes(val_folder)
    unknown = sorted(set(val_classes) - set(classes))
    if unknown:
        raise InputError(f"image folder {val_folder}: class {unknown[0]!r} is not among the classes of {source}")
    label_of_val_class = np.array([classes.index(name) for name in val_classes])
    return classes, (files, labels), (val_files, label_of_val_class[val_labels])


def _read_classes(folder: Path) -> tuple[tuple[str, ...], FilePaths, Labels]:
    """The classes (sub-folders with images, sorted by name) of `folder`, the paths of all images, and their labels."""
    index = load_index(folder)
    if not index.classes:
        raise InputError(f"image folder {folder} has no images; it needs one sub-folder of images per class")
    return index.classes, index.paths(folder), index.labels


def _find_subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    """The sub-folder of `root` with the first of `names` that exists; upper and lower case are the same."""
    by_name = {path.name.lower(): path for path in subfolders(root)}
    return next((by_name[name] for name in names if name in by_name), None)


def _has_classes(folder: Path) -> bool:
    return any(next(files_under(sub, is_image), None) for sub in subfolders(folder))


def _content(root: Path, classes: tuple[str, ...], train: _Split, val: _Split) -> str:
    """`Dataset.content` of image files: a digest of the split, path below `root` and class of each."""
    suffixes = [b"\0" + os.fsencode(name) for name in classes]
    lines: list[bytes] = []
    for split, (files, labels) in ((b"train\0", train), (b"val\0", val)):
        prefix = split + b"".join(os.fsencode(part) + b"/" for part in files.root.parts[len(root.parts) :])
        lines += (prefix + name + suffixes[label] for name, label in zip(files.names(), labels.tolist(), strict=True))
    return digest(b"\0".join(sorted(lines)))
