"""One image in a hundred cannot be read: it is named once, another takes its place, and training comes to its end."""

from __future__ import annotations

import re
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

IMAGES = {"train": 400, "val": 100}


def bomb(path: Path) -> None:
    """A sound PNG of 50,000 x 50,000 white or black pixels, 300 KB long, that fills gigabytes when decoded."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    side, press = 50_000, zlib.compressobj(1)
    row = bytes(1 + side // 8)
    packed = b"".join(press.compress(row * 1000) for _ in range(side // 1000)) + press.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


@pytest.fixture
def mostly_sound(tmp_path: Path) -> tuple[Path, set[str]]:
    """Small JPEGs of three classes in train/ and val/, and which of them, one in a hundred of each, are none."""
    folder, random = tmp_path / "images", np.random.default_rng(3)
    for split, count in IMAGES.items():
        for number in range(count):
            label = number % 3
            place = folder / split / ("red", "green", "blue")[label]
            place.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 120, (24, 24, 3), dtype=np.uint8)
            pixels[..., label] += 100
            Image.fromarray(pixels).save(place / f"{number:03}.jpg")
    train, val = folder / "train", folder / "val"
    truncated, empty, text = train / "red" / "003.jpg", train / "green" / "103.jpg", val / "blue" / "032.jpg"
    truncated.write_bytes(truncated.read_bytes()[:500])
    empty.write_bytes(b"")
    text.write_text("not what you think")
    (train / "blue" / "200.jpg").unlink()
    bomb(train / "blue" / "200.png")
    last = train / "red" / "399.jpg"  # of all, so that the first takes its place
    last.write_bytes(last.read_bytes()[:100])
    return folder, {str(path) for path in (truncated, empty, text, train / "blue" / "200.png", last)}


def peak_memory() -> int:
    """Bytes that this process or one of its children has ever had at once."""
    return 1024 * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def test_unreadable_images_are_named_once_and_others_take_their_places(
    kdaug: Callable,
    photos_command: list[str],
    mostly_sound: tuple[Path, set[str]],
    tmp_path: Path,
    lines_of: Callable,
) -> None:
    folder, bad = mostly_sound
    before = peak_memory()
    flags = ["--data.root", folder, "--optimization.global-batch", "40", "--optimization.epochs", "2"]
    said = kdaug(*photos_command, *flags, "--run.dir", tmp_path / "run")
    assert (said.code, said.err) == (0, "")
    assert sorted(re.findall(r"unreadable image left out: (\S+) \(.+\)$", said.out, re.MULTILINE)) == sorted(bad)
    assert "5 unreadable image(s) were left out" in said.out
    steps, (end,) = ([line for line in lines_of(tmp_path / "run") if line["kind"] == kind] for kind in ("step", "end"))
    assert [(line["step"], line["epoch"]) for line in steps] == [(step, (step - 1) // 10) for step in range(1, 21)]
    assert (end["unreadable"], end["images"]) == (5, 99)
    assert peak_memory() <= max(before, 2e9)
