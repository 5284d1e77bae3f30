"""Class folders may be called anything that a file system takes: a model's classes are these names, to the letter."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kdaug.networks import read_weights

NAMES = [
    "two words", " leading and trailing ", "ünïcödé 猫", "e\u0301 (decomposed)", "<script>alert(1)", "a..b",
    "'; rm -rf $HOME; \"", "[bold]red", "%s {0}", "--run.dir", "-", "a\\b", "new\nline", "tab\t", "CON", "1e3", "null",
    "~", "#", "*", "...odd", ".hidden", "x" * 255, "👩‍🔬",
]  # fmt: skip
HIDDEN = {".hidden"}
"""Folders with one dot in front are no classes."""


@pytest.fixture
def oddly_named(photos: Path, tmp_path: Path) -> Path:
    """Four photos in each of many folders, whose parent is called as oddly."""
    root = tmp_path / "photos of <me> & ünï [b]"
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for number in range(4):
            shutil.copy(photos / "red" / f"{number}.jpg", root / name)
    return root


def test_class_names_survive_training_to_the_letter(
    kdaug: Callable, oddly_named: Path, tmp_path: Path, photos_command: list[str]
) -> None:
    run = tmp_path / "run of ünï"
    flags = ["--data.root", oddly_named, "--optimization.epochs", "1", "--run.dir", run]
    said = kdaug(*photos_command, *flags)
    assert (said.code, said.err) == (0, "")
    _, card = read_weights(run / "last.safetensors")
    assert card.classes == tuple(sorted(set(NAMES) - HIDDEN))
    measured = kdaug("eval", run, "--json")
    assert measured.code == 0
    assert json.loads(measured.out)["images"] == len(card.classes)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_name_that_cannot_be_printed_does_not_end_a_run(
    started: Callable, photos: Path, photos_command: list[str], tmp_path: Path, encoding: str
) -> None:
    """Names are bytes to Linux, and not all bytes are text; it is an unreadable image that makes kdaug print them."""
    folder = tmp_path / "photos"
    shutil.copytree(photos / "red", folder / "red")
    shutil.copytree(photos / "blue", folder / os.fsdecode(b"b\xff"))
    (folder / os.fsdecode(b"b\xff") / "1.jpg").write_bytes(b"")
    flags = ["--data.root", folder, "--data.max-unreadable", "0.5", "--optimization.epochs", "1"]
    run = tmp_path / "ünï"
    with started(*photos_command, *flags, "--run.dir", run, PYTHONIOENCODING=encoding) as command:
        said = command.end()
    assert (said.code, said.err) == (0, "")
    assert "unreadable image left out" in said.out
    assert read_weights(run / "last.safetensors")[1].classes == (os.fsdecode(b"b\xff"), "red")
