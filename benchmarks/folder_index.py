"""Measures how long images in ImageNet's number take to open: looked through, and from the note of them.

    python benchmarks/folder_index.py                       # 1,281,167 + 50,000 links to one JPEG in 1,000 classes
    python benchmarks/folder_index.py --shards              # the same in WebDataset shards of 1,000 samples
    python benchmarks/folder_index.py --json FILE           # and the figures in FILE
    python benchmarks/folder_index.py --images 20000 --keep FOLDER

Every start is a process of its own, as for `kdaug train`; the file system's own cache is warm in all of them. Beside a
folder torchvision's ImageFolder looks through the same training images.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from views_benchmark.machine import load, this_machine

CLASSES = 1000
PER_SHARD = 1000
OWN_NETWORKS = (
    "import sys, time; from kdaug import config; from kdaug.data import load_dataset; began = time.perf_counter(); "
    "d = load_dataset(config.Data(name=sys.argv[2], root=sys.argv[1])); "
    "print(time.perf_counter() - began, len(d.train))"
)
TORCHVISION = (
    "import sys, time; from torchvision.datasets import ImageFolder; began = time.perf_counter(); "
    "d = ImageFolder(sys.argv[1] + '/train'); print(time.perf_counter() - began, len(d))"
)


def make(root: Path, images: int) -> None:
    """`images` training and a 25th as many validation images in CLASSES folders, all links to one file."""
    root.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / "one.jpg")
    for split, count in (("train", images), ("val", max(CLASSES, images * 50_000 // 1_281_167))):
        for number in range(CLASSES):
            (root / split / f"n{number:08d}").mkdir(parents=True)
        for number in range(count):
            name = f"n{number % CLASSES:08d}"
            if number % 30_000 == 0:  # a file can have 65,000 names on ext4
                source = root / f"{split}-{number}.jpg"
                Image.new("RGB", (8, 8)).save(source)
            os.link(source, root / split / name / f"{name}_{number}.JPEG")


def make_shards(root: Path, images: int) -> None:
    """The same, each image in a shard beside its label."""
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "jpeg")
    root.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", images), ("val", max(CLASSES, images * 50_000 // 1_281_167))):
        for first in range(0, count, PER_SHARD):
            with tarfile.open(root / f"{split}-{first // PER_SHARD:04}.tar", "w") as tar:
                for number in range(first, min(first + PER_SHARD, count)):
                    for ending, value in (("jpg", content.getvalue()), ("cls", b"%d" % (number % CLASSES))):
                        member = tarfile.TarInfo(f"{split}_{number:08}.{ending}")
                        member.size = len(value)
                        tar.addfile(member, io.BytesIO(value))


def start(program: str, root: Path, kind: str, cache: Path) -> float:
    """Seconds that `program` takes to open `root` in a new process."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root), kind], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


def measure(root: Path, kind: str, starts: int) -> dict[str, list[float]]:
    """Seconds of every start: the first looks through the folder and notes it, the others find the note."""
    with tempfile.TemporaryDirectory() as cache:
        seconds = {"looked through": [start(OWN_NETWORKS, root, kind, Path(cache))]}
        seconds["from the note"] = [start(OWN_NETWORKS, root, kind, Path(cache)) for _ in range(starts)]
        if kind == "folder":
            peers = [start(TORCHVISION, root, kind, Path(cache)) for _ in range(starts)]
            seconds["torchvision ImageFolder, train alone"] = peers
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--shards", action="store_true", help="in WebDataset shards instead of a folder")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="make the images there, or use those that are")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.keep or Path(folder) / "images"
        if not root.exists():
            print(f"writing {given.images:,} images ...", file=sys.stderr)
            (make_shards if given.shards else make)(root, given.images)
            time.sleep(3)  # a folder changed a moment ago is not noted
        before = load()
        seconds = measure(root, "shards" if given.shards else "folder", given.starts)
    for name, values in seconds.items():
        print(f"{name:<40}{statistics.median(values):8.2f} s")
    if given.json:
        machine = asdict(this_machine())
        report = {
            "images": given.images,
            "shards": given.shards,
            "machine": machine,
            "load": before,
            "seconds": seconds,
        }
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
