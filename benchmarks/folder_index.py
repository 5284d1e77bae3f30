"""Measures how long an image folder of ImageNet's size takes to open: looked through, and from the note of it.

    python benchmarks/folder_index.py                       # 1,281,167 + 50,000 links to one JPEG in 1,000 classes
    python benchmarks/folder_index.py --json FILE           # and the figures in FILE
    python benchmarks/folder_index.py --images 20000 --keep FOLDER

Every start is a process of its own, as for `kdaug train`; the file system's own cache is warm in all of them. Beside it
torchvision's ImageFolder looks through the same training folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from PIL import Image

from views_benchmark.machine import load, this_machine

CLASSES = 1000
OURS = (
    "import sys, time; from kdaug import config; from kdaug.data import load_dataset; began = time.perf_counter(); "
    "d = load_dataset(config.Data(name='folder', root=sys.argv[1])); print(time.perf_counter() - began, len(d.train))"
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


def start(program: str, root: Path, cache: Path) -> float:
    """Seconds that `program` takes to open `root` in a new process."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(root)], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[0])


def measure(root: Path, starts: int) -> dict[str, list[float]]:
    """Seconds of every start: the first looks through the folder and notes it, the others find the note."""
    with tempfile.TemporaryDirectory() as cache:
        first = start(OURS, root, Path(cache))
        noted = [start(OURS, root, Path(cache)) for _ in range(starts)]
        torchvisions = [start(TORCHVISION, root, Path(cache)) for _ in range(starts)]
    return {"looked through": [first], "from the note": noted, "torchvision ImageFolder, train alone": torchvisions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_281_167)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="make the images there, or use those that are")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = given.keep or Path(folder) / "images"
        if not root.exists():
            print(f"linking {given.images:,} images ...", file=sys.stderr)
            make(root, given.images)
            time.sleep(3)  # a folder changed a moment ago is not noted
        before = load()
        seconds = measure(root, given.starts)
    for name, values in seconds.items():
        print(f"{name:<40}{statistics.median(values):8.2f} s")
    if given.json:
        machine = asdict(this_machine())
        report = {"images": given.images, "machine": machine, "load": before, "seconds": seconds}
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
