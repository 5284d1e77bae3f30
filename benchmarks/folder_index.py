"""Measures how long opening a data set of ImageNet's size takes, at the first scan and from kdaug's cached index.

    python benchmarks/folder_index.py                       # 1,281,167 + 50,000 links to one JPEG in 1,000 classes
    python benchmarks/folder_index.py --shards              # the same in WebDataset shards of 1,000 samples
    python benchmarks/folder_index.py --json FILE           # also writes all measurements to FILE
    python benchmarks/folder_index.py --images 20000 --keep FOLDER

Every measurement runs in a new process, as `kdaug train` does; the file system cache is warm in all of them. For a
folder the script also measures torchvision's ImageFolder on the training images.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from harness.machine import load_average, this_machine
from harness.progress import print_progress
from harness.report import write_json
from harness.script import positive_int, script_parser

CLASSES = 1000
PER_SHARD = 1000
TRAIN_IMAGES, VAL_IMAGES = 1_281_167, 50_000
KDAUG = (
    "import sys, time; from kdaug import config; from kdaug.data import load_dataset; start = time.perf_counter(); "
    "d = load_dataset(config.Data(name=sys.argv[2], root=sys.argv[1])); "
    "print(time.perf_counter() - start, len(d.train))"
)
TORCHVISION = (
    "import sys, time; from torchvision.datasets import ImageFolder; start = time.perf_counter(); "
    "d = ImageFolder(sys.argv[1] + '/train'); print(time.perf_counter() - start, len(d))"
)
LABELS = {
    "looked through": "kdaug, first scan",
    "from the note": "kdaug, from the cached index",
    "torchvision ImageFolder, train alone": "torchvision ImageFolder, train only",
}
"""Keys in the JSON file, and the labels that are printed."""


def splits(images: int) -> Iterator[tuple[str, int]]:
    """Both splits with their numbers of images, in ImageNet's proportion."""
    yield "train", images
    yield "val", max(CLASSES, images * VAL_IMAGES // TRAIN_IMAGES)


def write_folder(root: Path, images: int) -> None:
    """Writes `images` training images and validation images in CLASSES folders; all are hard links."""
    for split, count in splits(images):
        for number in range(CLASSES):
            (root / split / f"n{number:08d}").mkdir(parents=True)
        for number in range(count):
            name = f"n{number % CLASSES:08d}"
            if number % 30_000 == 0:  # ext4 allows 65,000 links to a file
                source = root / f"{split}-{number}.jpg"
                Image.new("RGB", (8, 8)).save(source)
            os.link(source, root / split / name / f"{name}_{number}.JPEG")


def write_shards(root: Path, images: int) -> None:
    """Writes the same images and their labels in WebDataset shards."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "jpeg")
    root.mkdir(parents=True)
    for split, count in splits(images):
        for first in range(0, count, PER_SHARD):
            with tarfile.open(root / f"{split}-{first // PER_SHARD:04}.tar", "w") as tar:
                for number in range(first, min(first + PER_SHARD, count)):
                    for suffix, value in (("jpg", content.getvalue()), ("cls", b"%d" % (number % CLASSES))):
                        member = tarfile.TarInfo(f"{split}_{number:08}.{suffix}")
                        member.size = len(value)
                        tar.addfile(member, io.BytesIO(value))


def seconds_to_open(program: str, root: Path, kind: str, cache: Path) -> float:
    """Seconds that `program` takes to open `root` in a new process."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    process = subprocess.run(
        [sys.executable, "-c", program, str(root), kind], env=environment, capture_output=True, text=True, check=True
    )
    return float(process.stdout.split()[0])


def measure(root: Path, kind: str, starts: int) -> dict[str, list[float]]:
    """Seconds of every start, by key. The first start scans the data set and writes the index; the others read it."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        seconds = {"looked through": [seconds_to_open(KDAUG, root, kind, cache)]}
        seconds["from the note"] = [seconds_to_open(KDAUG, root, kind, cache) for _ in range(starts)]
        if kind == "folder":
            peer = [seconds_to_open(TORCHVISION, root, kind, cache) for _ in range(starts)]
            seconds["torchvision ImageFolder, train alone"] = peer
    return seconds


def main() -> None:
    parser = script_parser(__doc__ or "")
    parser.add_argument("--images", type=positive_int, default=TRAIN_IMAGES, help="default: %(default)s")
    parser.add_argument("--shards", action="store_true", help="WebDataset shards instead of a folder")
    parser.add_argument("--starts", type=positive_int, default=3, help="default: %(default)s")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the images to FOLDER, or use those in it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = args.keep or Path(folder) / "images"
        if not root.exists():
            print_progress(f"writing {args.images:,} images")
            (write_shards if args.shards else write_folder)(root, args.images)
            time.sleep(3)  # a folder that has just been changed is not cached
        load = load_average()
        seconds = measure(root, "shards" if args.shards else "folder", args.starts)
    for name, values in seconds.items():
        print(f"{LABELS[name]:<40}{statistics.median(values):8.2f} s")
    if args.json:
        report = {"images": args.images, "shards": args.shards, "machine": asdict(this_machine()), "load": load}
        write_json(args.json, report | {"seconds": seconds})


if __name__ == "__main__":
    main()
