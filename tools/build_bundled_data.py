#!/usr/bin/env python3
"""Builds the bundled data set from the official Fashion-MNIST files.

    python tools/build_bundled_data.py --source DIR      # DIR contains FashionMNIST/raw/*-ubyte, unpacked

Takes the first 1,000 training and the first 200 test images of each class, in the order of the files, and writes them
to src/kdaug/data/bundled: an image sheet and a label file per split, the license and a README with check sums. Then
reads everything back and compares it with the source.

Needs NumPy and Pillow. The pixels and labels depend on the source alone; the compressed bytes of the PNG files may
differ between versions of Pillow.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Bytes = NDArray[np.uint8]

OUT = Path(__file__).resolve().parents[1] / "src" / "kdaug" / "data" / "bundled"
SIDE = 28
COLUMNS = 100
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

# split: (name in the official files, images per class)
SPLITS = {"train": ("train", 1000), "test": ("t10k", 200)}

# SHA-256 of the official files, unpacked.
OFFICIAL = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

LICENSE = """\
The MIT License (MIT) Copyright © 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the “Software”), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED “AS IS”, WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""  # noqa: E501

README = """\
# The bundled images

A class-balanced part of Fashion-MNIST, so that kdaug can be tried and tested without a download: 10,000 training and
2,000 test images of clothes, gray, 28 × 28 pixels, ten classes. They are the first 1,000 training and the first 200
test images of each class, unchanged and in the order of the official files.

Source: [github.com/zalandoresearch/fashion-mnist](https://github.com/zalandoresearch/fashion-mnist), Han Xiao, Kashif
Rasul, Roland Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747. License: MIT, in `LICENSE-fashion-mnist.txt`.

`train.png` and `test.png` are lossless gray sheets of {columns} images per row without gaps; image i is in row
i // {columns}, column i % {columns}. `train.labels` and `test.labels` contain one byte per image, in the same order.

| label | 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 |
|---|---|---|---|---|---|---|---|---|---|---|
| class | {classes} |

```python
sheet = np.asarray(Image.open("train.png"))                                        # uint8 [2800, 2800]
images = sheet.reshape(-1, 28, 100, 28).swapaxes(1, 2).reshape(-1, 28, 28)         # uint8 [10000, 28, 28]
labels = np.fromfile("train.labels", np.uint8)                                     # uint8 [10000]
```

SHA-256 of the bytes of these arrays (C order):

| array | shape | SHA-256 |
|---|---|---|
{sums}

Made by `python tools/build_bundled_data.py --source DIR` from the repository of kdaug; DIR contains the unpacked
official files as `FashionMNIST/raw/train-images-idx3-ubyte` and so on.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder that contains FashionMNIST/raw")
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write (default: %(default)s)")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    sums = []
    for split, (official, per_class) in SPLITS.items():
        images, labels = first_of_each_class(*read_official(args.source / "FashionMNIST" / "raw", official), per_class)
        write_split(args.out, split, images, labels)
        verify_split(args.out, split, images, labels)
        for kind, array in (("images", images), ("labels", labels)):
            shape = " × ".join(map(str, array.shape))
            sums.append(f"| {split} {kind} | {shape} | `{hashlib.sha256(array.tobytes()).hexdigest()}` |")
    readme = README.format(columns=COLUMNS, classes=" | ".join(CLASSES), sums="\n".join(sums))
    (args.out / "README.md").write_text(readme, encoding="utf-8", newline="\n")
    (args.out / "LICENSE-fashion-mnist.txt").write_text(LICENSE, encoding="utf-8", newline="\n")

    files = sorted(args.out.iterdir())
    for file in files:
        print(f"{file.stat().st_size:>10,}  {file.name}")
    print(f"{sum(file.stat().st_size for file in files):>10,}  total")
    print("\n".join(sums))


def read_official(folder: Path, name: str) -> tuple[Bytes, Bytes]:
    """Images uint8 [N,28,28] and labels uint8 [N] of the idx files `name`; exits if a SHA-256 differs."""
    contents = []
    for file in (f"{name}-images-idx3-ubyte", f"{name}-labels-idx1-ubyte"):
        try:
            content = (folder / file).read_bytes()
        except OSError as error:
            sys.exit(f"{folder / file}: {error.strerror}; --source must be the folder that contains FashionMNIST/raw")
        if hashlib.sha256(content).hexdigest() != OFFICIAL[file]:
            sys.exit(f"{folder / file}: not the official file (SHA-256 differs)")
        contents.append(np.frombuffer(content, np.uint8))
    images, labels = contents
    return images[16:].reshape(-1, SIDE, SIDE), labels[8:]


def first_of_each_class(images: Bytes, labels: Bytes, per_class: int) -> tuple[Bytes, Bytes]:
    """The first `per_class` images of every class and their labels, in their original order."""
    rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:per_class] for label in range(len(CLASSES))]))
    return images[rows], labels[rows]


def write_split(folder: Path, split: str, images: Bytes, labels: Bytes) -> None:
    """Writes the image sheet and the label file of a split."""
    grid = images.reshape(-1, COLUMNS, SIDE, SIDE).swapaxes(1, 2).reshape(-1, COLUMNS * SIDE)
    Image.fromarray(grid).save(folder / f"{split}.png", optimize=True)
    labels.tofile(folder / f"{split}.labels")


def verify_split(folder: Path, split: str, images: Bytes, labels: Bytes) -> None:
    """Reads a split back; exits if an image or a label differs, or if the classes are not balanced."""
    start = time.perf_counter()
    sheet = np.asarray(Image.open(folder / f"{split}.png"))
    read_images = sheet.reshape(-1, SIDE, COLUMNS, SIDE).swapaxes(1, 2).reshape(-1, SIDE, SIDE)
    read_labels = np.fromfile(folder / f"{split}.labels", np.uint8)
    seconds = time.perf_counter() - start
    counts = np.bincount(read_labels, minlength=len(CLASSES))
    if not np.array_equal(read_images, images) or not np.array_equal(read_labels, labels):
        sys.exit(f"{split}: the images or labels read back differ from those written")
    if not (counts == SPLITS[split][1]).all():
        sys.exit(f"{split}: classes are not balanced: {counts.tolist()}")
    print(f"{split}: {len(read_images):,} images read back in {seconds:.2f} s, all equal")


if __name__ == "__main__":
    main()
