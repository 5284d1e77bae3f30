"""Unreadable images, one in a hundred: each is named once, another image replaces it, and training finishes."""

from __future__ import annotations

import re
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from support.images import write_noise
from support.runs import read_lines


def write_bomb(path: Path) -> None:
    """A valid PNG of 50,000 x 50,000 black or white pixels, 300 KB long, which needs gigabytes when decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side, compressor = 50_000, zlib.compressobj(1)
    row = bytes(1 + side // 8)
    packed = b"".join(compressor.compress(row * 1000) for _ in range(side // 1000)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


@pytest.fixture
def damaged_photos(tmp_path: Path) -> tuple[Path, set[str]]:
    """400 training and 100 validation JPEGs of three classes, and the paths of the five unreadable ones."""
    folder = tmp_path / "images"
    train = write_noise(folder / "train", {"blue": 134, "green": 133, "red": 133}, (24, 24), "jpg")
    val = write_noise(folder / "val", {"blue": 34, "green": 33, "red": 33}, (24, 24), "jpg")
    truncated, empty, text = train / "red" / "001.jpg", train / "green" / "034.jpg", val / "blue" / "010.jpg"
    bomb = train / "blue" / "066.png"
    last = train / "red" / "132.jpg"  # of all images, so that the first one replaces it
    truncated.write_bytes(truncated.read_bytes()[:500])
    empty.write_bytes(b"")
    text.write_text("text")
    bomb.with_suffix(".jpg").unlink()
    write_bomb(bomb)
    last.write_bytes(last.read_bytes()[:100])
    return folder, {str(path) for path in (truncated, empty, text, bomb, last)}


def peak_memory() -> int:
    """The most bytes that this process or one of its children has used."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def test_unreadable_images_are_named_once_and_replaced(
    kdaug: Callable, photos_command: list[str], damaged_photos: tuple[Path, set[str]], tmp_path: Path
) -> None:
    folder, unreadable = damaged_photos
    before = peak_memory()
    flags = ["--data.root", folder, "--optimization.global-batch", "40", "--optimization.epochs", "2"]
    result = kdaug(*photos_command, *flags, "--run.dir", tmp_path / "run")
    assert (result.code, result.err) == (0, "")
    named = re.findall(r"^warning: unreadable image left out: (\S+) \(.+\)$", result.out, re.MULTILINE)
    assert sorted(named) == sorted(unreadable)
    assert "5 unreadable image(s) were left out" in result.out
    steps, (end,) = read_lines(tmp_path / "run", "step"), read_lines(tmp_path / "run", "end")
    assert [(line["step"], line["epoch"]) for line in steps] == [(step, (step - 1) // 10) for step in range(1, 21)]
    assert (end["unreadable"], end["images"]) == (5, 99)
    assert peak_memory() <= max(before + 0.5e9, 2e9)  # the bomb alone would need 2.5e9; other tests may have used more
