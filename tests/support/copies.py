"""An image folder with known copies, written by the tests."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CLASSES = ("crème brûlée", 'it\'s "x", y')
BAD_NAME = os.fsdecode(b"bad\xff.jpg")


def picture(number: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """One of many different pictures: smooth random colors, (width, height) = `size`."""
    colors = np.random.default_rng(number).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC)


def write_folder_with_copies(root: Path) -> dict[str, tuple[str, str]]:
    """Writes train/ (6 images of each class) and val/ (2 images), then copies of some, in every way.

    Returns (problem, the other path) of each image that is a finding, by path; all paths relative to `root`.
    """
    first, second = CLASSES
    number = 0
    for split, count in (("train", 6), ("val", 2)):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for row in range(count):
                picture(number).save(root / split / name / f"{row}.jpg", quality=90)
                number += 1
    train = root / "train" / first
    shutil.copy(train / "0.jpg", train / "copy of 0.jpg")
    shutil.copy(train / "1.jpg", root / "train" / second / BAD_NAME)
    shutil.copy(train / "2.jpg", root / "val" / first / "leak.jpg")
    with Image.open(train / "3.jpg") as opened:
        opened.save(root / "val" / second / "encoded again.jpg", quality=40)
    with Image.open(train / "4.jpg") as opened:
        opened.resize((160, 120)).save(train / "resized.png")
    with Image.open(train / "5.jpg") as opened:
        ImageOps.mirror(opened).save(train / "mirrored.jpg", quality=90)
    (train / "broken.jpg").write_bytes((train / "0.jpg").read_bytes()[:300])
    (train / "broken too.jpg").write_bytes((train / "0.jpg").read_bytes()[:300])  # not a copy: nothing is known of it
    return {
        f"train/{first}/copy of 0.jpg": ("copy", f"train/{first}/0.jpg"),
        f"train/{second}/{BAD_NAME}": ("conflict", f"train/{first}/1.jpg"),
        f"val/{first}/leak.jpg": ("leak", f"train/{first}/2.jpg"),
        f"val/{second}/encoded again.jpg": ("leak and conflict", f"train/{first}/3.jpg"),
        f"train/{first}/resized.png": ("copy", f"train/{first}/4.jpg"),
        f"train/{first}/broken.jpg": ("unreadable", ""),
        f"train/{first}/broken too.jpg": ("unreadable", ""),
    }


def write_shard(folder: Path, root: Path) -> None:
    """The files of the image folder `folder` as the shards train.tar and val.tar in `root`."""
    root.mkdir()
    for split in ("train", "val"):
        with tarfile.open(root / f"{split}.tar", "w") as tar:
            for path in sorted((folder / split).rglob("*.*")):
                content = path.read_bytes()
                member = tarfile.TarInfo(str(path.relative_to(folder / split)))
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
