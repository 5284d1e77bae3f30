"""The folder index: it lists what is in the folder, and the cached one is used as long as no folder has changed."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kdaug.data import folder_index
from kdaug.data.folder_index import FilePaths, FolderIndex, load_index, scan_folder

Tree = Callable[[dict[str, int]], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory; small folders are cached too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_index, "_MIN_FILES_TO_CACHE", 1)
    return tmp_path / "cache" / "kdaug" / "folders"


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were scanned."""
    scanned = []

    def scan(folder: Path) -> FolderIndex:
        scanned.append(folder)
        return scan_folder(folder)

    monkeypatch.setattr(folder_index, "scan_folder", scan)
    return scanned


def age(root: Path, seconds: float = 60) -> Path:
    """Sets the modification time of all folders to some time ago."""
    mtime = time.time() - seconds
    for folder, _, _ in os.walk(root):
        os.utime(folder, (mtime, mtime))
    return root


def class_by_path(index: FolderIndex, folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): index.classes[label]
        for path, label in zip(index.paths(folder), index.labels, strict=True)
    }


def test_an_unchanged_folder_is_scanned_once(image_tree: Tree, scans: list[Path], cache: Path) -> None:
    root = age(image_tree({"a": 2, "b/deep": 3, "ünï": 1}))
    first, second = load_index(root), load_index(root)
    assert scans == [root]
    assert second == first
    assert class_by_path(first, root) == {
        "a/0.png": "a", "a/1.png": "a", "ünï/0.png": "ünï",
        "b/deep/0.png": "b", "b/deep/1.png": "b", "b/deep/2.png": "b",
    }  # fmt: skip
    assert list(second.paths(root)) == sorted(root.rglob("*.png"))


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "new class", "class gone", "deep"])
def test_any_change_causes_a_scan(image_tree: Tree, scans: list[Path], change: str) -> None:
    root = age(image_tree({"a": 2, "b/deep": 3}))
    load_index(root)
    match change:
        case "added":
            (root / "a/new.png").touch()
        case "removed":
            (root / "a/0.png").unlink()
        case "renamed":
            (root / "a/0.png").rename(root / "a/9.png")
        case "new class":
            (root / "c").mkdir()
            (root / "c/0.png").touch()
        case "class gone":
            shutil.rmtree(root / "b")
        case "deep":
            (root / "b/deep/new.png").touch()
    again = load_index(root)
    assert scans == [root, root]
    assert again == scan_folder(root)
    assert set(class_by_path(again, root)) == {str(path.relative_to(root)) for path in root.rglob("*.png")}


def test_a_folder_changed_just_now_is_not_cached(image_tree: Tree, scans: list[Path], cache: Path) -> None:
    """It could change again within the resolution of its modification time."""
    root = age(image_tree({"a": 2, "b": 2}))
    (root / "a/new.png").touch()
    load_index(root)
    assert not cache.exists()
    load_index(root)
    assert scans == [root, root]


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-3], lambda content: content.replace(b"0.png", b"7.png"), lambda _: b""]
)
def test_a_damaged_cache_file_is_ignored(
    image_tree: Tree, scans: list[Path], cache: Path, damage: Callable[[bytes], bytes]
) -> None:
    root = age(image_tree({"a": 2, "b": 2}))
    first = load_index(root)
    (cache_file,) = cache.iterdir()
    cache_file.write_bytes(damage(cache_file.read_bytes()))
    assert load_index(root) == first
    assert scans == [root, root]


def test_without_a_writable_cache_each_start_scans(
    image_tree: Tree, scans: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    root = age(image_tree({"a": 1, "b": 1}))
    assert load_index(root) == load_index(root)
    assert scans == [root, root]


def test_a_small_folder_is_not_cached(image_tree: Tree, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_index, "_MIN_FILES_TO_CACHE", 5)
    load_index(age(image_tree({"a": 2, "b": 2})))
    assert not cache.exists()


def test_a_moved_folder_has_the_same_images(image_tree: Tree, tmp_path: Path) -> None:
    root = age(image_tree({"a": 2, "b": 2}))
    first = load_index(root)
    moved = root.rename(tmp_path / "moved")
    assert class_by_path(load_index(moved), moved) == class_by_path(first, root)


def test_names_that_are_not_utf8_are_cached(image_tree: Tree, scans: list[Path]) -> None:
    root = image_tree({"a": 1, "b": 1})
    odd = root / os.fsdecode(b"\xff\n ") / os.fsdecode(b"x\xfe\ny.png")
    odd.parent.mkdir()
    odd.touch()
    age(root)
    for index in (load_index(root), load_index(root)):
        assert odd in list(index.paths(root))
        assert odd.parent.name in index.classes
    assert len(scans) == 1


def test_file_paths_are_a_sequence() -> None:
    names = [b"a/1.png", b"a/22.png", b"b/3.png"]
    ends = np.cumsum([len(name) + 1 for name in names]) - 1
    paths = FilePaths(Path("root"), b"\0".join(names), np.append(0, ends[:-1] + 1), ends)
    plain = tuple(Path("root") / name.decode() for name in names)
    assert tuple(paths) == plain
    assert (len(paths), paths[-1]) == (3, plain[-1])
    assert tuple(paths.take(np.array([2, 0]))) == (plain[2], plain[0])
    with pytest.raises(IndexError):
        paths[3]
