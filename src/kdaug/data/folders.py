"""Image folders: one sub-folder per class, with or without a split into train/ and val/."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from kdaug import config
from kdaug.data.folder_index import FilePaths, images_under, load_index, subfolders
from kdaug.data.images import Dataset, EncodedImages, digest, hold_out
from kdaug.errors import InputError

TRAIN_NAMES = ("train", "training")
VAL_NAMES = ("val", "valid", "validation", "test")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_SIZE = 224


def load_folder(settings: config.Data) -> Dataset:
    """The data set in folder `settings.root`: train/ and val/ (or training/, valid/, validation/, test/),
    or the classes directly.

    A train/ without sub-folders of images is a class like any other. Without a split, `settings.val_fraction` of each
    class is held out, the same images every time. Raises InputError for a folder that is missing, empty or unreadable,
    has one class only, no train/ beside val/, or classes in val/ that train/ lacks.
    """
    root = Path(settings.root)
    try:
        classes, train, val = _read_splits(root, settings.val_fraction)
    except OSError as error:
        raise InputError(f"image folder {error.filename} cannot be read ({error.strerror})") from None
    side = settings.image_size or DEFAULT_SIZE
    content = _content(root, classes, train, val)
    return Dataset(root.name, classes, train, val, (side, side), IMAGENET_MEAN, IMAGENET_STD, content)


def _read_splits(root: Path, val_fraction: float) -> tuple[tuple[str, ...], EncodedImages, EncodedImages]:
    """The classes of `root`, its training and its validation images."""
    if not root.is_dir():
        raise InputError(f"image folder {root} does not exist; give it with --data.root")
    train_folder = _named(root, TRAIN_NAMES)
    has_train = train_folder is not None and _holds_classes(train_folder)
    source = train_folder if train_folder is not None and has_train else root
    classes, images = _read_classes(source)
    if not has_train and {name.lower() for name in classes} <= {*TRAIN_NAMES, *VAL_NAMES}:
        raise InputError(
            f"image folder {root} holds only {', '.join(classes)}; train/ with a sub-folder per class is missing"
        )
    if len(classes) < 2:
        raise InputError(f"image folder {source} has one class only ({classes[0]}); there is nothing to tell apart")
    val_folder = _named(root, VAL_NAMES)
    if not has_train or val_folder is None:
        assert isinstance(images.files, FilePaths)
        names = [b"/".join(name.split(b"/")[-2:]) for name in images.files.names()]
        return classes, *hold_out(images, names, classes, val_fraction, f"image folder {source}")
    val_classes, val = _read_classes(val_folder)
    unknown = sorted(set(val_classes) - set(classes))
    if unknown:
        raise InputError(f"image folder {val_folder}: class {unknown[0]!r} is not among those of {source}")
    position = np.array([classes.index(name) for name in val_classes])
    return classes, images, EncodedImages(val.files, position[val.labels])


def _read_classes(folder: Path) -> tuple[tuple[str, ...], EncodedImages]:
    """The classes (sub-folders that hold images, sorted by name) of `folder`, and all their images."""
    index = load_index(folder)
    if not index.classes:
        raise InputError(f"image folder {folder} holds no images; it needs one sub-folder of images per class")
    return index.classes, EncodedImages(index.paths(folder), index.labels)


def _named(root: Path, names: tuple[str, ...]) -> Path | None:
    """The sub-folder of `root` with the first of `names` that there is, in capitals or not."""
    by_name = {path.name.lower(): path for path in subfolders(root)}
    return next((by_name[name] for name in names if name in by_name), None)


def _holds_classes(folder: Path) -> bool:
    return any(next(images_under(sub), None) for sub in subfolders(folder))


def _content(root: Path, classes: tuple[str, ...], train: EncodedImages, val: EncodedImages) -> str:
    """`Dataset.content` of image files: which belong to which class and split."""
    ends = [b"\0" + os.fsencode(name) for name in classes]
    files: list[bytes] = []
    for split, images in ((b"train\0", train), (b"val\0", val)):
        assert isinstance(images.files, FilePaths)
        begin = split + b"".join(os.fsencode(part) + b"/" for part in images.files.root.parts[len(root.parts) :])
        files += (
            begin + name + ends[label] for name, label in zip(images.files.names(), images.labels.tolist(), strict=True)
        )
    return digest(b"\0".join(sorted(files)))
