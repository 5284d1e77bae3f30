"""Class folders may have any name that a file system allows; a model's classes are exactly these names."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import running_command

from kdaug.networks import read_weights

NAMES = [
    "two words", " leading and trailing ", "ünïcödé 猫", "e\u0301 (decomposed)", "<script>alert(1)", "a..b",
    "'; rm -rf $HOME; \"", "[bold]red", "%s {0}", "--run.dir", "-", "a\\b", "new\nline", "tab\t", "CON", "1e3", "null",
    "~", "#", "*", "...odd", ".hidden", "x" * 255, "👩‍🔬",
]  # fmt: skip
HIDDEN = {".hidden"}
"""Folders whose names start with one dot are not classes."""


@pytest.fixture
def unusual_photos(photos: Path, tmp_path: Path) -> Path:
    """Four photos in each of NAMES, below a folder with an unusual name."""
    root = tmp_path / "photos of <me> & ünï [b]"
    for name in NAMES:
        (root / name).mkdir(parents=True)
        for number in range(4):
            shutil.copy(photos / "red" / f"{number:03}.jpg", root / name)
    return root


def test_class_names_are_kept_exactly(
    kdaug: Callable, unusual_photos: Path, tmp_path: Path, photos_command: list[str]
) -> None:
    run = tmp_path / "run of ünï"
    flags = ["--data.root", unusual_photos, "--optimization.epochs", "1", "--run.dir", run]
    result = kdaug(*photos_command, *flags)
    assert (result.code, result.err) == (0, "")
    _, card = read_weights(run / "last.safetensors")
    assert card.classes == tuple(sorted(set(NAMES) - HIDDEN))
    evaluation = kdaug("eval", run, "--json")
    assert evaluation.code == 0
    assert json.loads(evaluation.out)["images"] == len(card.classes)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_a_name_that_cannot_be_printed_does_not_end_a_run(
    photos: Path, photos_command: list[str], tmp_path: Path, encoding: str
) -> None:
    """File names are bytes, which may not be valid text. kdaug prints the name of an unreadable image."""
    folder = tmp_path / "photos"
    shutil.copytree(photos / "red", folder / "red")
    shutil.copytree(photos / "blue", folder / os.fsdecode(b"b\xff"))
    (folder / os.fsdecode(b"b\xff") / "001.jpg").write_bytes(b"")
    flags = ["--data.root", folder, "--data.max-unreadable", "0.5", "--optimization.epochs", "1"]
    run = tmp_path / "ünï"
    with running_command(*photos_command, *flags, "--run.dir", run, PYTHONIOENCODING=encoding) as command:
        result = command.end()
    assert (result.code, result.err) == (0, "")
    assert "unreadable image left out" in result.out
    assert read_weights(run / "last.safetensors")[1].classes == (os.fsdecode(b"b\xff"), "red")
