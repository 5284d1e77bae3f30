"""Prints hashes of kdaug's results, to check that a refactoring does not change them.

    python tools/behavior_hashes.py WORK_FOLDER > before.txt     # repeat after the refactoring and compare with diff

Trains the demo recipe for two epochs with and without a teacher, trains on a photo folder, kills and resumes a run, and
labels the views of the demo, each on one thread in a new folder in WORK_FOLDER. Prints one SHA-256 per file. The hashes
depend on the machine and on the versions of torch and numpy, so compare them on one machine.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

DEMO = ["demo", "--run.threads", "1", "--run.device", "cpu", "--optimization.epochs", "2"]
PHOTOS = (
    "photos --student.name wide_resnet10_1 --data.image-size 32 --data.workers 1 --optimization.global-batch 8 "
    "--optimization.epochs 2 --run.device cpu --run.threads 1"
).split()


def kdaug(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "kdaug", *map(str, arguments)]


def run(*arguments: str | Path) -> None:
    subprocess.run(kdaug(*arguments), check=True, stdout=subprocess.DEVNULL)


def write_photos(root: Path) -> Path:
    """Writes JPEGs of three classes: 24 per class in train/, 8 in val/."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 8)):
        for label in range(3):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = (int(side) for side in generator.integers(40, 90, 2))
                pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
                pixels[8:30, 8:30, label] = 220
                Image.fromarray(pixels).save(folder / f"{number:02}.jpg", quality=92)
    return root


def kill_and_resume(folder: Path) -> None:
    """Trains with a checkpoint every 10 steps, kills the process after the third, and resumes."""
    arguments = ["train", *DEMO, "--teacher.source", "none", "--run.checkpoint-steps", "10", "--run.dir", folder]
    process = subprocess.Popen(kdaug(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / "checkpoints" / "step-00000030").exists():
        if process.poll() is not None:
            raise SystemExit("the run ended before it could be killed")
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run(*arguments, "--run.resume")


def weights(folder: Path) -> Iterator[Path]:
    yield folder / "last.safetensors"


def labels(folder: Path) -> Iterator[Path]:
    yield from sorted(folder.rglob("*.safetensors"))


def main() -> None:
    work = Path(sys.argv[1])
    work.mkdir(parents=True)
    os.chdir(work)  # paths in recipes and stores do not depend on WORK_FOLDER
    run("train", *DEMO, "--teacher.source", "none", "--run.dir", "plain")
    run("train", *DEMO, "--run.dir", "student")
    teacher = next(Path("teachers").rglob("last.safetensors")).parent
    run("train", *PHOTOS, "--data.root", write_photos(Path("images")), "--run.dir", "photos",
        "--teacher.source", "none")  # fmt: skip
    kill_and_resume(Path("resumed"))
    run("label", *DEMO, "--teacher.source", f"run:{teacher}", "--out", "labels", "--epochs", "0:1")
    folders = dict.fromkeys(("plain", "student", "photos", "resumed"), weights) | {"labels": labels}
    for name, files in folders.items():
        for file in files(Path(name)):
            print(hashlib.sha256(file.read_bytes()).hexdigest(), file)


if __name__ == "__main__":
    main()
