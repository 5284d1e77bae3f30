#!/usr/bin/env python3
"""Builds the bundled Omniglot characters from the official archives.

    python tools/build_omniglot_data.py --source DIR     # DIR contains images_background_small1.zip and ..._small2.zip

Takes all characters of both archives. Each was drawn by the same 20 people; the first ten give the training images, the
others the test images. Drawings of 105 x 105 pixels are inverted (white on black) and averaged down to 28 x 28. Writes
a sheet of images per split, the class names and a README with check sums to src/kdaug/data/omniglot, then reads
everything back and compares it with what was written.

Needs NumPy and Pillow. The compressed bytes of the PNG files may differ between versions of Pillow.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

OUT = Path(__file__).resolve().parents[1] / "src" / "kdaug" / "data" / "omniglot"
SIDE = 28
COLUMNS = 110
PEOPLE = 20
ARCHIVES = {
    "images_background_small1.zip": "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    "images_background_small2.zip": "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
}
"""SHA-256 of the official archives."""

README = """\
# Omniglot characters

{classes} characters of eight alphabets, each drawn by 20 people, gray, 28 × 28 pixels: {train:,} training images (ten
per character) and {test:,} test images (ten per character, drawn by other people). Few images per class, so networks
over-fit without augmentation.

They are all characters of the parts "background small 1" and "background small 2" of Omniglot, inverted and averaged
down from 105 × 105 pixels. Source: [github.com/brendenlake/omniglot](https://github.com/brendenlake/omniglot),
Brenden M. Lake, Ruslan Salakhutdinov, Joshua B. Tenenbaum, "Human-level concept learning through probabilistic
program induction", Science 350 (2015). License: MIT, in `LICENSE-omniglot.txt`.

`train.png` and `test.png` are lossless gray sheets of {columns} images per row without gaps. `classes.txt` has the
class names in order. Image i is of class i // 10. SHA-256 of the bytes of the arrays [N,28,28]:

| array | SHA-256 |
|---|---|
| train images | `{train_sha}` |
| test images | `{test_sha}` |

Made by `python tools/build_omniglot_data.py --source DIR` from the repository of kdaug.
"""


def read_drawings(source: Path) -> dict[str, dict[int, bytes]]:
    """PNG files by class ("Greek/character01") and person (1 to 20). Exits if an archive is not the official one."""
    drawings: dict[str, dict[int, bytes]] = {}
    for name, checksum in ARCHIVES.items():
        content = (source / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != checksum:
            sys.exit(f"{source / name} is not the official file")
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in map(PurePosixPath, archive.namelist()):
                if member.suffix == ".png" and member.parts[0] != "__MACOSX":
                    alphabet, character, file = member.parts[-3:]
                    person = int(file.split("_")[1].removesuffix(".png"))
                    drawings.setdefault(f"{alphabet}/{character}", {})[person] = archive.read(str(member))
    return dict(sorted(drawings.items()))


def to_pixels(png: bytes) -> Bytes:
    """The drawing as uint8 [28,28], white on black."""
    inverted = Image.eval(Image.open(io.BytesIO(png)).convert("L"), lambda value: 255 - value)
    return np.asarray(inverted.resize((SIDE, SIDE), Image.Resampling.BOX))


def to_sheet(images: Bytes) -> Bytes:
    """[N,28,28] -> one image with COLUMNS images per row."""
    rows = images.reshape(-1, COLUMNS, SIDE, SIDE).swapaxes(1, 2)
    return rows.reshape(-1, COLUMNS * SIDE)


def from_sheet(path: Path) -> Bytes:
    sheet = np.asarray(Image.open(path))
    return sheet.reshape(-1, SIDE, COLUMNS, SIDE).swapaxes(1, 2).reshape(-1, SIDE, SIDE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True)
    drawings = read_drawings(parser.parse_args().source)
    people = {"train": range(1, PEOPLE // 2 + 1), "test": range(PEOPLE // 2 + 1, PEOPLE + 1)}
    splits = {
        split: np.stack([to_pixels(by_person[person]) for by_person in drawings.values() for person in persons])
        for split, persons in people.items()
    }
    OUT.mkdir(parents=True, exist_ok=True)
    for split, images in splits.items():
        Image.fromarray(to_sheet(images)).save(OUT / f"{split}.png", optimize=True)
        if not np.array_equal(from_sheet(OUT / f"{split}.png"), images):
            sys.exit(f"{split}.png differs from its source")
    (OUT / "classes.txt").write_text("".join(f"{name}\n" for name in drawings), encoding="utf-8")
    sums = {f"{split}_sha": hashlib.sha256(images.tobytes()).hexdigest() for split, images in splits.items()}
    counts = {split: len(images) for split, images in splits.items()}
    (OUT / "README.md").write_text(
        README.format(classes=len(drawings), columns=COLUMNS, **counts, **sums), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
