"""Recognizes the training and validation folders of an image folder by their names and contents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from kdaug.data.folder_index import count_images, has_images, subfolders
from kdaug.data.images import TEST_NAMES, TRAIN_NAMES, VAL_NAMES
from kdaug.errors import InputError

Kind = Literal["train", "val", "test", "unlabeled"]

_WORDS: dict[Kind, frozenset[str]] = {
    "train": frozenset(TRAIN_NAMES),
    "val": frozenset(VAL_NAMES).difference(TEST_NAMES),
    "test": frozenset(TEST_NAMES),
    "unlabeled": frozenset(("pred", "predict", "prediction", "predictions", "unlabeled", "unlabelled")),
}
_SUFFIX = "(?:set|sets|data|images|imgs|split)?"
_WRAPPERS = frozenset(("images", "imgs", "data", "jpegimages"))
"""Names of a folder that may stand between a split's folder and its class folders."""
_NAMED = 5


@dataclass(frozen=True)
class SplitFolders:
    """The folders with the class folders of each split, and what is not used.

    val: None if validation images must be held out of `train`. unused: for messages, one for each folder.
    """

    train: Path
    val: Path | None
    unused: tuple[str, ...] = ()


def find_splits(root: Path) -> SplitFolders:
    """The splits of `root`: by the usual names, then by a word of the name (seg_train, val2017), else `root` itself.

    Raises InputError if it is unclear whether a folder is a split or a class, if the training split is missing, or if
    the folder of validation images has images but no class folders.
    """
    folders = subfolders(root)
    train = _find_train(root, folders)
    if train is None:
        _check_classes(root, folders)
        return SplitFolders(root, None)
    train_classes = _class_folder(train)
    val, unused = _find_val(root, [folder for folder in folders if folder != train], train_classes or train)
    return SplitFolders(train_classes or train, val, unused)


def kind_of(name: str) -> Kind | None:
    """The split that the words of a folder's name say: train2017, seg_test, ValidationSet, dev; None: none."""
    words = {word.lower() for word in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    for kind, names in _WORDS.items():
        pattern = re.compile(f"(?:{'|'.join(names)}){_SUFFIX}")
        if any(pattern.fullmatch(word) for word in words):
            return kind
    return None


def _find_train(root: Path, folders: list[Path]) -> Path | None:
    """The folder of the training split; None if the sub-folders of `root` are classes."""
    for name in TRAIN_NAMES:
        exact = next((folder for folder in folders if folder.name.lower() == name), None)
        if exact is not None:
            return exact if _class_folder(exact) else None
    candidates = [folder for folder in folders if kind_of(folder.name) == "train" and _class_folder(folder)]
    if not candidates:
        return None
    others = [folder for folder in folders if kind_of(folder.name) is None and has_images(folder)]
    if others and not any(_shares_classes(folder, candidates[0]) for folder in folders if folder != candidates[0]):
        raise InputError(
            f"image folder {root}: {candidates[0].name}/ has sub-folders of images. Is it the training split, or a "
            f"class like {others[0].name}/",
            f"for a split, rename it train or set data.root to {candidates[0]}; for a class, move the images of its "
            "sub-folders into it",
        )
    if len(candidates) > 1:
        raise InputError(
            f"image folder {root} has several training folders ({_names(candidates)})", "name only one of them train"
        )
    return candidates[0]


def _shares_classes(folder: Path, train: Path) -> bool:
    """Whether `folder` is a validation or test split with the classes of `train`."""
    if kind_of(folder.name) not in ("val", "test"):
        return False
    of_folder, of_train = ({sub.name for sub in subfolders(_class_folder(path) or path)} for path in (folder, train))
    return bool(of_folder & of_train)


def _check_classes(root: Path, folders: list[Path]) -> None:
    """Raises InputError if a sub-folder of `root`, which has no training split, is a validation or test split."""
    if not any(kind_of(folder.name) for folder in folders):
        return
    with_images = [folder for folder in folders if has_images(folder)]
    exact = [folder for folder in with_images if folder.name.lower() in (*TRAIN_NAMES, *VAL_NAMES)]
    splits = [folder for folder in with_images if kind_of(folder.name) is not None and _class_folder(folder)]
    if with_images and {*exact, *splits} == {*with_images}:
        raise InputError(f"image folder {root} has no train/ with one sub-folder per class, only {_names(with_images)}")
    class_names = {folder.name for folder in with_images}
    for split in splits:
        classes = _class_folder(split)
        if classes and class_names & {sub.name for sub in subfolders(classes)}:
            raise InputError(
                f"image folder {root} has class folders and {split.name}/ with the same classes, but no train/",
                f"move the class folders beside {split.name}/ into train/",
            )


def _find_val(root: Path, folders: list[Path], train: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The class folders of the validation split (None: there are none), and a note on each folder that is not used."""
    class_names = {folder.name for folder in subfolders(train)}
    unused, found = dict[Path, str](), None
    for split in _validation_folders(root, folders):
        is_test = kind_of(split.name) == "test"
        classes = _class_folder(split, class_names)
        if classes is None and is_test:
            unused[split] = f"{split.name}/ ({_flat_images(split)})"
        elif classes is not None and is_test and _is_unlabeled(classes, class_names):
            unused[split] = f"{split.name}/ ({count_images(split):,} images, none in a folder of a class)"
        elif classes is None and (count := count_images(split)):
            raise InputError(
                f"image folder {split} has {count:,} images but no class folders",
                f"sort them into one sub-folder per class, as in {train.name}/, or rename it to hold out validation "
                "images of the training images",
            )
        else:
            found = classes or split
            break
    used = found and next(folder for folder in folders if folder == found or folder == found.parent)
    for folder in folders:
        if folder != used and folder not in unused and has_images(folder):
            flat = "" if _class_folder(folder) else f" ({_flat_images(folder)})"
            unused[folder] = f"{folder.name}/{flat}"
    return found, tuple(unused[folder] for folder in folders if folder in unused)


def _validation_folders(root: Path, folders: list[Path]) -> Iterable[Path]:
    """The folders that may have the validation images, best first: by the usual names, then by a word of the name."""
    for name in VAL_NAMES:
        yield from (folder for folder in folders if folder.name.lower() == name)
    for kind in ("val", "test"):
        others = [folder for folder in folders if folder.name.lower() not in VAL_NAMES]
        named = [folder for folder in others if kind_of(folder.name) == kind and has_images(folder)]
        if len(named) > 1 and kind == "val":
            raise InputError(
                f"image folder {root} has several validation folders ({_names(named)})", "name only one of them val"
            )
        yield from named


def _is_unlabeled(split: Path, class_names: set[str]) -> bool:
    """Whether the only sub-folder with images in `split` is not a class (test/unknown)."""
    (first, *more) = islice(_with_images(split), 2)
    return not more and first.name not in class_names


def _class_folder(folder: Path, class_names: set[str] | None = None) -> Path | None:
    """The folder whose sub-folders are classes: `folder`, or the only one in it, if that has its name or is a wrapper.

    None if no sub-folder has images. class_names: of the training split, if known; one of these is no wrapper.
    """
    first, *more = (*islice(_with_images(folder), 2), None)
    if first is None:
        return None
    more, inner_name = more[:-1], first.name.lower()
    is_wrapper = inner_name == folder.name.lower() or inner_name in _WRAPPERS
    if more or not is_wrapper or first.name in (class_names or ()):
        return folder
    return first if any(_with_images(first)) else folder


def _with_images(folder: Path) -> Iterable[Path]:
    return (sub for sub in subfolders(folder) if has_images(sub))


def _flat_images(folder: Path) -> str:
    count = count_images(folder)
    return f"{count:,} images without class folders" if count else "no images"


def _names(folders: Iterable[Path]) -> str:
    names = [folder.name for folder in folders]
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
