"""Image folders: which files belong to which class and split, and the errors for invalid folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from PIL import Image

from kdaug import config
from kdaug.data import Dataset, EncodedImages, load_dataset
from kdaug.data.images import split_off_validation
from kdaug.errors import InputError

Tree = Callable[[dict[str, int]], Path]


def load(root: Path, **options: float) -> Dataset:
    return load_dataset(config.Data(name="folder", root=str(root), **options))


def files(images: object, root: Path) -> dict[str, int]:
    """Path below `root` -> label."""
    assert isinstance(images, EncodedImages)
    assert len(images.files) == len(images.labels) == len(images)
    return {str(path.relative_to(root)): int(label) for path, label in zip(images.files, images.labels, strict=True)}


@pytest.mark.parametrize("val", ["val", "valid", "validation", "test"])
def test_train_and_val_folders_are_the_split(val: str, image_tree: Tree) -> None:
    root = image_tree({"train/dog": 2, "train/cat": 1, "train/owl": 1, f"{val}/dog": 1, f"{val}/owl": 2})
    dataset = load(root)
    assert dataset.classes == ("cat", "dog", "owl")
    assert files(dataset.train, root) == {
        "train/cat/0.png": 0, "train/dog/0.png": 1, "train/dog/1.png": 1, "train/owl/0.png": 2,
    }  # fmt: skip
    assert files(dataset.val, root) == {f"{val}/dog/0.png": 1, f"{val}/owl/0.png": 2, f"{val}/owl/1.png": 2}


def test_val_is_preferred_to_test(image_tree: Tree) -> None:
    root = image_tree({f"{split}/{name}": 1 for split in ("train", "test", "val") for name in "ab"})
    assert set(files(load(root).val, root)) == {"val/a/0.png", "val/b/0.png"}


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_a_split_part_of_each_class_is_held_out(prefix: str, image_tree: Tree) -> None:
    root = image_tree({f"{prefix}a": 20, f"{prefix}b": 10, f"{prefix}c": 2})
    first = load(root, val_fraction=0.2)
    train, val = files(first.train, root), files(first.val, root)
    assert not train.keys() & val.keys()
    assert len(train | val) == 32
    assert Counter(val.values()) == {0: 4, 1: 2, 2: 1}
    again = load(root, val_fraction=0.2)
    assert (files(again.train, root), files(again.val, root)) == (train, val)
    all_of_a = sorted(path for path, label in (train | val).items() if label == 0)
    val_of_a = sorted(path for path, label in val.items() if label == 0)
    assert val_of_a not in (all_of_a[:4], all_of_a[-4:]), "selected at random, not the first or last ones"


@given(st.lists(st.integers(1, 30), min_size=2, max_size=5), st.floats(0.001, 0.999))
@settings(max_examples=50)
def test_both_splits_have_all_classes_of_two_images_and_no_image_in_common(counts: list[int], fraction: float) -> None:
    assume(max(counts) > 1)
    labels = np.repeat(np.arange(len(counts)), counts)
    names = [f"{label}/{row}.png".encode() for row, label in enumerate(labels)]
    classes = [str(label) for label in range(len(counts))]
    train_rows, val_rows = split_off_validation(labels, names, classes, fraction, "root")
    assert sorted([*train_rows, *val_rows]) == list(range(len(labels)))
    for rows in (train_rows, val_rows):
        assert (np.diff(rows) > 0).all()
    for count, val_count in zip(counts, np.bincount(labels[val_rows], minlength=len(counts)), strict=True):
        assert min(1, count - 1) <= val_count <= count - 1
        assert abs(val_count - fraction * count) <= 1


def test_files_and_labels_are_split_together(image_tree: Tree) -> None:
    dataset = load(image_tree({"0": 9, "1": 30, "2": 4}), val_fraction=0.3)
    for images in (dataset.train, dataset.val):
        assert_array_equal([int(path.parent.name) for path in images.files], images.labels)


@pytest.mark.parametrize("more", [{}, {"train/empty": 0}, {"train/.thumbnails": 1}])
def test_a_train_folder_without_sub_folders_is_a_class(more: dict[str, int], image_tree: Tree) -> None:
    root = image_tree({"bus/red": 10, "train": 10, "val": 10, **more})
    dataset = load(root)
    assert dataset.classes == ("bus", "train", "val")
    assert Counter(files(dataset.train, root).values()) == {0: 9, 1: 9, 2: 9}
    assert len(dataset.val) == 3


def test_linked_folders_are_followed(image_tree: Tree, tmp_path: Path) -> None:
    root = image_tree({"elsewhere/cats": 2, "elsewhere/more/deep": 3, "train/dog": 1, "val/dog": 1})
    (tmp_path / "photos/elsewhere").rename(tmp_path / "elsewhere")
    (root / "train/cat").symlink_to(tmp_path / "elsewhere/cats")
    (root / "train/cat/back").symlink_to(root)
    (root / "train/dog/more").symlink_to("../../../elsewhere/more", target_is_directory=True)
    assert files(load(root).train, root) == {
        "train/cat/0.png": 0, "train/cat/1.png": 0, "train/dog/0.png": 1,
        "train/dog/more/deep/0.png": 1, "train/dog/more/deep/1.png": 1, "train/dog/more/deep/2.png": 1,
    }  # fmt: skip


@pytest.mark.timeout(20)
def test_circular_links_add_no_image_and_no_class(image_tree: Tree) -> None:
    root = image_tree({"a/x": 2, "a/y": 1, "b": 2})
    plain = load(root)
    for link, target in {
        "a/up": "..",
        "a/x/top": "../../..",
        "a/x/self": ".",
        "a/x/y": "../y",
        "c": ".",
        "d": "d",
    }.items():
        (root / link).symlink_to(target)
    circular = load(root)
    assert circular.classes == ("a", "b")
    assert len(circular.train) + len(circular.val) == 5
    real = {path.resolve() for images in (circular.train, circular.val) for path in images.files}
    assert real == {path.resolve() for images in (plain.train, plain.val) for path in images.files}


@pytest.mark.parametrize("folder", ["", "a", "b/deep"])
def test_the_error_names_an_unreadable_folder(folder: str, image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_tree({"a": 2, "b/deep": 2})

    def guarded(listing: Callable[..., object]) -> Callable[..., object]:
        def list_(path: object = ".") -> object:
            if Path(str(path)) == root / folder:
                raise PermissionError(13, "Permission denied", str(path))
            return listing(path)

        return list_

    for name in ("scandir", "listdir"):  # not chmod: root may read everything
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)$") as error:
        load(root)
    assert str(error.value).startswith(f"image folder {root / folder} ")


def test_content_depends_on_names_classes_and_splits(
    image_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = image_tree({"train/a": 3, "train/b": 2, "val/a": 2, "val/b": 1})
    contents = {load(root).content}
    (root / "train/a/notes.txt").touch()
    root.rename(tmp_path / "moved")
    root = tmp_path / "moved"
    monkeypatch.chdir(root)
    assert {load(root).content, load(Path()).content, load(root, train_images=2, image_size=8).content} == contents
    for before, after in [
        ("train/a/0.png", "train/a/7.png"), ("train/a/7.png", "train/b/7.png"), ("val/b/0.png", "train/b/8.png"),
        ("val/a/0.png", "val/a/0.txt"), ("val/a/0.txt", "val/a/0.png"),
    ]:  # fmt: skip
        (root / before).rename(root / after)
        contents.add(load(root).content)
    assert len(contents) == 5, "the last change reverts the one before"
    (root / "train/b").rename(root / "train/c")
    contents.add(load(root).content)
    (root / "val").rename(root / "held out")
    contents |= {load(root, val_fraction=fraction).content for fraction in (0.2, 0.6)}
    assert len(contents) == 8
    assert all(len(content) == 16 and int(content, 16) >= 0 for content in contents)


def test_class_names_may_have_any_characters(image_tree: Tree) -> None:
    names = ["<script>alert(1)<", "golden retriever", "Ünïcode 猫", "a'b\"c", "50%"]
    root = image_tree(dict.fromkeys(names, 2))
    dataset = load(root)
    assert dataset.classes == tuple(sorted(names))
    assert {Path(path).parts[0] for path in files(dataset.train, root)} == set(names)


def test_all_usual_extensions_are_images_in_any_case(image_tree: Tree) -> None:
    root = image_tree({"a": 2, "b": 2})
    for extension in ["JPG", "jpeg", "Png", "webp", "bmp", "gif", "tif", "TIFF", "ppm"]:
        (root / "a" / f"photo.{extension}").touch()
    dataset = load(root)
    assert len(dataset.train) + len(dataset.val) == 4 + 9


def test_a_class_name_may_start_with_two_dots(image_tree: Tree) -> None:
    assert load(image_tree({"..a..": 2, "b": 2, ".c": 2})).classes == ("..a..", "b")


def test_hidden_files_and_other_files_are_ignored(image_tree: Tree) -> None:
    root = image_tree({"train/a": 1, "train/b": 1, "val/a": 1, "train/.cache": 1, "train/@eaDir": 1})
    for stray in [
        "train/a/._0.png",
        "train/a/notes.txt",
        "train/a/noending",
        "train/a/.thumbnails/0.png",
        "train/b/.ipynb_checkpoints/0-checkpoint.png",
        "train/top.png",
    ]:
        (root / stray).parent.mkdir(exist_ok=True)
        (root / stray).touch()
    (root / "train/a/folder.png").mkdir()
    dataset = load(root)
    assert dataset.classes == ("a", "b")
    assert set(files(dataset.train, root)) == {"train/a/0.png", "train/b/0.png"}


def test_images_in_deeper_folders_belong_to_the_class(image_tree: Tree) -> None:
    root = image_tree({"train/a/x/y": 1, "train/b": 1, "val/a": 1})
    assert files(load(root).train, root) == {"train/a/x/y/0.png": 0, "train/b/0.png": 1}


def test_defaults_are_size_224_and_imagenet_statistics(image_tree: Tree) -> None:
    root = image_tree({"a": 2, "b": 2})
    assert load(root).size == (224, 224)
    small = load(root, image_size=64)
    assert (small.size, small.mean, small.std) == ((64, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (None, "does not exist; give it with data.root"),
        ({}, "has no images in sub-folders; it needs one sub-folder of images per class"),
        ({"a": 0, "b": 0}, "has no images"),
        ({"only": 3}, r"has one class only \(only\)"),
        ({"train/a": 1, "train/b": 1, "val/c": 1}, "val: class 'c' is not among the classes of .*train"),
        ({"train/a": 1, "train/b": 1, "val/a": 0}, "val has no images"),
        ({"train/only": 1, "val/only": 1}, "has one class only"),
        ({"val/a": 1, "val/b": 1}, "has no train/ with one sub-folder per class, only val"),
        ({"valid/a": 1, "test/a": 1}, "has no train/ with one sub-folder per class, only test, valid"),
        ({"val": 1}, "has no train/ with one sub-folder per class, only val"),
        ({"train": 2, "val": 2}, "has no train/ with one sub-folder per class, only train, val"),
        ({"train/a": 0, "val/a": 1}, "has no train/ with one sub-folder per class, only val"),
        ({"a": 1, "b": 1}, "every class has only one image"),
    ],
)
def test_an_invalid_folder_is_an_error(
    tree: dict[str, int] | None, message: str, image_tree: Tree, tmp_path: Path
) -> None:
    root = tmp_path / "photos"
    if tree is not None:
        image_tree(tree)
        root.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=message) as error:
        load(root)
    assert str(root) in str(error.value)


@pytest.mark.parametrize(("train", "val"), [("Train", "Val"), ("training", "validation"), ("TRAIN", "test")])
def test_split_folders_may_have_any_usual_name(tmp_path: Path, train: str, val: str) -> None:
    for split, name in product((train, val), ("cat", "dog")):
        (tmp_path / split / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / split / name / "a.png")
    dataset = load_dataset(config.Data(name="folder", root=str(tmp_path)))
    assert (dataset.classes, len(dataset.train), len(dataset.val)) == (("cat", "dog"), 2, 2)
