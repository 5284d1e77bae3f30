"""Images that a user names: files, folders and patterns."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kdaug.inference.image_files import find_images

FILES = (
    "b.jpg", "a.PNG", "notes.txt", "film.mov", "film2.mov", ".hidden.jpg", "sub/c.jpg", "sub/deep/d.webp",
    "@eaDir/thumb.jpg", "[1].jpg", "none/notes.txt", "odd name*.jpg",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current folder has FILES, all empty."""
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)


ALL = ["[1].jpg", "a.PNG", "b.jpg", "odd name*.jpg", "sub/c.jpg", "sub/deep/d.webp"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["b.jpg", "a.PNG"], ["b.jpg", "a.PNG"]),
        (["notes.txt"], ["notes.txt"]),
        ([".hidden.jpg"], [".hidden.jpg"]),
        (["."], ALL),
        (["sub/"], ["sub/c.jpg", "sub/deep/d.webp"]),
        (["*.jpg"], ["[1].jpg", "b.jpg", "odd name*.jpg"]),
        (["**/*.jpg"], ["[1].jpg", "b.jpg", "odd name*.jpg", "sub/c.jpg"]),
        (["s*"], ["sub/c.jpg", "sub/deep/d.webp"]),
        (["[1].jpg"], ["[1].jpg"]),
        (["odd name*.jpg"], ["odd name*.jpg"]),
        (["sub/c.jpg", "sub", "./sub/c.jpg", "b.jpg"], ["sub/c.jpg", "sub/deep/d.webp", "b.jpg"]),
    ],
)
def test_files_folders_and_patterns_name_images(arguments: list[str], expected: list[str]) -> None:
    found = find_images(arguments)
    assert list(map(str, found.paths)) == expected
    assert found.problems == []


def test_what_gives_no_image_is_reported() -> None:
    found = find_images(["missing.jpg", "b.jpg", "none", "x*.jpg"])
    assert found.paths == [Path("b.jpg")]
    assert found.problems == [
        ("missing.jpg", "no such file"), ("none", "a folder without images"), ("x*.jpg", "no such file"),
    ]  # fmt: skip


def test_other_files_in_folders_are_counted() -> None:
    assert find_images([".", "b.jpg"]).passed_over == "2 .mov; 2 .txt"
    assert find_images(["sub", "notes.txt"]).passed_over == ""


def test_a_broken_link_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "sub" / "broken.jpg").symlink_to("nowhere")
    assert Path("sub/broken.jpg") in find_images(["sub"]).paths
    assert find_images(["sub/broken.jpg"]).paths == [Path("sub/broken.jpg")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all folders")
def test_a_folder_that_may_not_be_read_is_reported(tmp_path: Path) -> None:
    (tmp_path / "sub").chmod(0)
    assert find_images(["b.jpg", "sub"]).problems == [("sub", "Permission denied")]


def test_an_error_of_the_file_system_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scandir: Callable = os.scandir

    def fail(path: str) -> object:
        if str(path) == "sub/deep":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    found = find_images(["b.jpg", "sub"])
    assert (found.paths, found.problems) == ([Path("b.jpg")], [("sub/deep", "Permission denied")])
