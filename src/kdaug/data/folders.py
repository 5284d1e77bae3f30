"""Image folders: one sub-folder per class, with or without a split into train/ and val/."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from kdaug import config
from kdaug.data.images import Dataset, FolderImages
from kdaug.errors import InputError

EXTENSIONS = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .ppm .pgm .pbm .pnm .avif .jp2 .tga .ico".split()
)
VAL_NAMES = ("val", "valid", "validation", "test")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEFAULT_SIZE = 224


def load_folder(settings: config.Data) -> Dataset:
    """The data set in folder `settings.root`: train/ and val/ (or valid/, validation/, test/), or the classes directly.

    Without a split, `settings.val_fraction` of each class is held out, the same images every time. Raises InputError
    for a folder that is missing or empty, has one class only, or classes in val/ that train/ lacks.
    """
    root = Path(settings.root)
    if not root.is_dir():
        raise InputError(f"image folder {root} does not exist; give it with --data.root")
    val_folder = next((root / name for name in VAL_NAMES if (root / name).is_dir()), None)
    if (root / "train").is_dir() and val_folder is not None:
        classes, train = _read_classes(root / "train")
        val_classes, val = _read_classes(val_folder, at_least=1)
        unknown = sorted(set(val_classes) - set(classes))
        if unknown:
            raise InputError(f"image folder {val_folder}: class {unknown[0]!r} is not among those of {root / 'train'}")
        position = np.array([classes.index(name) for name in val_classes])
        val = FolderImages(val.paths, position[val.labels])
    else:
        classes, everything = _read_classes(root / "train" if (root / "train").is_dir() else root)
        train, val = _held_out(everything, settings.val_fraction)
    side = settings.image_size or DEFAULT_SIZE
    return Dataset(root.name, classes, train, val, (side, side), IMAGENET_MEAN, IMAGENET_STD)


def _read_classes(folder: Path, at_least: int = 2) -> tuple[tuple[str, ...], FolderImages]:
    """The classes (sub-folders that hold images, sorted by name) of `folder`, and all their images."""
    classes: list[str] = []
    paths: list[Path] = []
    labels: list[int] = []
    for sub in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        found = sorted(p for p in sub.rglob("*") if _is_image(p, sub))
        if found:
            labels += [len(classes)] * len(found)
            classes.append(sub.name)
            paths += found
    if not classes:
        raise InputError(f"image folder {folder} holds no images; it needs one sub-folder of images per class")
    if len(classes) < at_least:
        raise InputError(f"image folder {folder} has one class only ({classes[0]}); there is nothing to tell apart")
    return tuple(classes), FolderImages(tuple(paths), np.array(labels, np.int64))


def _is_image(path: Path, below: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(below).parts)
    return path.suffix.lower() in EXTENSIONS and not hidden and path.is_file()


def _held_out(images: FolderImages, fraction: float) -> tuple[FolderImages, FolderImages]:
    """(the rest, `fraction` of each class, at least one image).

    A file's place in the draw depends on its own name alone, so that adding files moves hardly any to the other side.
    """
    names = ["/".join(path.parts[-2:]) for path in images.paths]
    drawn = np.argsort(
        [hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest() for name in names], kind="stable"
    )
    val_rows = []
    for label in range(int(images.labels.max()) + 1):
        members = drawn[images.labels[drawn] == label]
        if len(members) < 2:
            raise InputError(f"class folder {images.paths[members[0]].parent} holds one image; a split needs two")
        val_rows.append(members[: max(1, round(fraction * len(members)))][: len(members) - 1])
    val = np.sort(np.concatenate(val_rows))
    return images.subset(np.setdiff1d(np.arange(len(images)), val)), images.subset(val)
