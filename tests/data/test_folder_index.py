"""A folder is looked through once: what is noted is what is there, as long as no folder has changed."""

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
    """An empty cache, in which small folders are worth a note too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_index, "_MIN_FILES_TO_CACHE", 1)
    return tmp_path / "cache" / "kdaug" / "folders"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were looked through."""
    looked = []

    def look(folder: Path) -> FolderIndex:
        looked.append(folder)
        return scan_folder(folder)

    monkeypatch.setattr(folder_index, "scan_folder", look)
    return looked


def age(root: Path, seconds: float = 60) -> Path:
    """Makes all folders look as if last changed some time ago."""
    then = time.time() - seconds
    for place, _, _ in os.walk(root):
        os.utime(place, (then, then))
    return root


def found(index: FolderIndex, folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): index.classes[label]
        for path, label in zip(index.paths(folder), index.labels, strict=True)
    }


def test_an_unchanged_folder_is_not_looked_through_again(image_tree: Tree, looks: list[Path], cache: Path) -> None:
    root = age(image_tree({"a": 2, "b/deep": 3, "ünï": 1}))
    first, second = load_index(root), load_index(root)
    assert looks == [root]
    assert second == first
    assert found(first, root) == {
        "a/0.png": "a", "a/1.png": "a", "ünï/0.png": "ünï",
        "b/deep/0.png": "b", "b/deep/1.png": "b", "b/deep/2.png": "b",
    }  # fmt: skip
    assert list(second.paths(root)) == sorted(root.rglob("*.png"))


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "new class", "class gone", "deep"])
def test_any_change_is_noticed(image_tree: Tree, looks: list[Path], change: str) -> None:
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
    assert looks == [root, root]
    assert again == scan_folder(root)
    assert set(found(again, root)) == {str(path.relative_to(root)) for path in root.rglob("*.png")}


def test_a_folder_changed_a_moment_ago_is_not_noted(image_tree: Tree, looks: list[Path], cache: Path) -> None:
    """It could be changed once more without its time telling."""
    root = age(image_tree({"a": 2, "b": 2}))
    (root / "a/new.png").touch()
    load_index(root)
    assert not cache.exists()
    load_index(root)
    assert looks == [root, root]


@pytest.mark.parametrize(
    "spoil", [lambda note: note[:-3], lambda note: note.replace(b"0.png", b"7.png"), lambda _: b""]
)
def test_a_damaged_note_counts_as_none(
    image_tree: Tree, looks: list[Path], cache: Path, spoil: Callable[[bytes], bytes]
) -> None:
    root = age(image_tree({"a": 2, "b": 2}))
    first = load_index(root)
    (note,) = cache.iterdir()
    note.write_bytes(spoil(note.read_bytes()))
    assert load_index(root) == first
    assert looks == [root, root]


def test_a_cache_that_cannot_be_written_costs_only_time(
    image_tree: Tree, looks: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    root = age(image_tree({"a": 1, "b": 1}))
    assert load_index(root) == load_index(root)
    assert looks == [root, root]


def test_a_small_folder_leaves_no_note(image_tree: Tree, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_index, "_MIN_FILES_TO_CACHE", 5)
    load_index(age(image_tree({"a": 2, "b": 2})))
    assert not cache.exists()


def test_a_folder_moved_is_another_with_the_same_images(image_tree: Tree, tmp_path: Path) -> None:
    root = age(image_tree({"a": 2, "b": 2}))
    first = load_index(root)
    moved = root.rename(tmp_path / "moved")
    assert found(load_index(moved), moved) == found(first, root)


def test_names_that_are_not_text_come_back_from_a_note(image_tree: Tree, looks: list[Path]) -> None:
    root = image_tree({"a": 1, "b": 1})
    odd = root / os.fsdecode(b"\xff\n ") / os.fsdecode(b"x\xfe\ny.png")
    odd.parent.mkdir()
    odd.touch()
    age(root)
    for index in (load_index(root), load_index(root)):
        assert odd in list(index.paths(root))
        assert odd.parent.name in index.classes
    assert len(looks) == 1


def test_paths_are_taken_sliced_and_counted_like_those_of_a_tuple() -> None:
    names = [b"a/1.png", b"a/22.png", b"b/3.png"]
    ends = np.cumsum([len(name) + 1 for name in names]) - 1
    paths = FilePaths(Path("root"), b"\0".join(names), np.append(0, ends[:-1] + 1), ends)
    plain = tuple(Path("root") / name.decode() for name in names)
    assert tuple(paths) == plain
    assert (len(paths), paths[-1], tuple(paths[1:])) == (3, plain[-1], plain[1:])
    assert tuple(paths.take(np.array([2, 0]))) == (plain[2], plain[0])
    with pytest.raises(IndexError):
        paths[3]
