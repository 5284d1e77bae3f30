"""Image folders as people have them: other names of splits, system folders, files that are not read, flat splits."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdaug import config
from kdaug.data import Dataset, formats, load_dataset
from kdaug.data.formats import readable_extensions
from kdaug.data.split_folders import kind_of
from kdaug.errors import InputError

Tree = Callable[[dict[str, int]], Path]


def load(root: Path | str) -> Dataset:
    return load_dataset(config.Data(name="folder", root=str(root)))


def below(dataset: Dataset, root: Path) -> tuple[set[str], set[str]]:
    """The folders of the training images and of the validation images."""
    train, val = (
        {str(path.parent.relative_to(root)) for path in images.files} for images in (dataset.train, dataset.val)
    )
    return train, val


def split_tree(train: str, val: str) -> dict[str, int]:
    return {f"{split}/{name}": 2 for split in (train, val) for name in "ab"}


@pytest.mark.parametrize("root", [".", "./", "x/.."])
def test_a_relative_root_has_the_same_images(root: str, image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = image_tree({"cats": 9, "dogs": 9})
    (folder / "x").mkdir()
    expected = {path.relative_to(folder) for path in folder.rglob("*.png")}
    monkeypatch.chdir(folder)
    (folder / "x").rename(folder / ".x")
    dataset = load(root.replace("x", ".x"))
    found = {path.resolve().relative_to(folder) for split in (dataset.train, dataset.val) for path in split.files}
    assert (found, dataset.classes) == (expected, ("cats", "dogs"))


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("seg_train", "seg_test"), ("seg_train/seg_train", "seg_test/seg_test"), ("train2017", "val2017"),
        ("Training", "Testing"), ("TrainingSet", "TestSet"), ("train", "dev"), ("train/images", "val/images"),
        ("ILSVRC_img_train", "ILSVRC_img_val"),
    ],
)  # fmt: skip
def test_splits_under_other_names_are_recognized(train: str, val: str, image_tree: Tree) -> None:
    root = image_tree(split_tree(train, val))
    dataset = load(root)
    assert dataset.classes == ("a", "b")
    assert below(dataset, root) == ({f"{train}/a", f"{train}/b"}, {f"{val}/a", f"{val}/b"})


def test_words_of_a_name_are_compared_whole() -> None:
    assert [kind_of(name) for name in ("trainers", "testimony", "validity", "contest", "device")] == [None] * 5


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"train2019/a": 2, "train2019/b": 2, "photos": 3}, "Is it the training split, or a class like photos/"),
        (split_tree("train2014", "train2017"), r"several training folders \(train2014, train2017\)"),
        (split_tree("seg_test", "seg_val"), "no train/ with one sub-folder per class, only seg_test, seg_val"),
        ({"a": 2, "b": 2, "val/a": 2}, "class folders and val/ with the same classes, but no train/"),
        ({"data/a": 2, "data/b": 2}, "one class only .*set data.root to .*data"),
        ({**split_tree("train", "x"), "val": 20}, "val has 20 images but no class folders"),
        ({"a": 2, "b": 2, "c": 0}, "class c of image folder .* has no readable images"),
    ],
)
def test_an_unclear_folder_is_refused(tree: dict[str, int], message: str, image_tree: Tree) -> None:
    with pytest.raises(InputError, match=message):
        load(image_tree(tree))


@pytest.mark.parametrize("test", ["test", "test/unknown", "test/test"])
def test_an_unlabeled_test_split_is_passed_over(test: str, image_tree: Tree) -> None:
    root = image_tree({"train/a": 20, "train/b": 20, test: 7})
    dataset = load(root)
    assert (len(dataset.train), len(dataset.val)) == (36, 4)
    assert below(dataset, root)[1] == {"train/a", "train/b"}
    assert [note for note in dataset.passed_over if note.startswith("test/ (7 images")]


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "__MACOSX", "lost+found", "$RECYCLE.BIN", "@EADIR"])
def test_system_folders_are_no_classes_and_no_images(name: str, image_tree: Tree) -> None:
    root = image_tree({"a": 5, "b": 5, name: 3, f"a/{name}": 3, f"b/x/{name}": 3})
    (root / "a/Thumbs.db").touch()
    dataset = load(root)
    assert (dataset.classes, len(dataset.train) + len(dataset.val)) == (("a", "b"), 10)
    assert dataset.passed_over == ()


def test_runs_below_the_root_are_no_class(image_tree: Tree) -> None:
    root = image_tree({"a": 5, "b": 5, "runs/x": 2})
    for name in ("recipe.yaml", "metrics.jsonl"):
        (root / "runs/x" / name).touch()
    assert load(root).classes == ("a", "b")


@pytest.fixture
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The packages that read more formats are not installed."""
    for module in ("pillow_heif", "pillow_avif"):
        monkeypatch.setitem(sys.modules, module, None)
    readable_extensions.cache_clear()
    yield
    readable_extensions.cache_clear()


@pytest.mark.usefixtures("_no_plugins")
def test_what_is_used_and_passed_over_is_logged_once(image_tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    root = image_tree({"train/a": 20, "train/b": 20, "test": 7})
    for number in range(100):
        (root / "train/a" / f"{number}.HEIC").touch()
    (root / "train/b/notes.txt").touch()
    with caplog.at_level(logging.INFO, "kdaug"):
        load(root)
    assert caplog.messages == [
        "data: photos: 2 classes (a, b), 36 training images; validation: 4 images, 10 % of each class held out of "
        "training (data.val_fraction)",
        "data: photos: passed over: test/ (7 images without class folders); 100 .heic: install pillow-heif; 1 .txt",
    ]


@pytest.mark.usefixtures("_no_plugins")
def test_a_class_of_files_that_are_not_read_is_refused(image_tree: Tree) -> None:
    root = image_tree({"a": 2, "b": 2, "birds": 0})
    (root / "birds/1.heic").touch()
    with pytest.raises(InputError, match=r"class birds .* \(only 1 \.heic: install pillow-heif\)"):
        load(root)


def test_an_installed_plugin_makes_more_files_images(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(formats, "readable_extensions", readable_extensions)
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=lambda: calls.append(1)))
    readable_extensions.cache_clear()
    assert formats.is_image("x.HEIC")
    assert calls == [1]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    readable_extensions.cache_clear()
    assert not formats.is_image("x.HEIC")
    readable_extensions.cache_clear()


def test_without_a_home_directory_nothing_is_cached(image_tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = image_tree({"a": 3, "b": 3})
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert load(root).classes == ("a", "b")
