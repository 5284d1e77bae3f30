"""Measures decoding: photos a second on one thread, from JPEG file to a random part of 224 pixels, beside the peers.

    python benchmarks/decode.py                        # on photos made up here, 500 x 375 and 4000 x 3000
    python benchmarks/decode.py --photos FOLDER        # JPEG files of your own
    python benchmarks/decode.py --json FILE            # and every round in FILE

Each contender opens the file, takes an Inception crop and resizes it bicubically: ours by kdaug.data.decode, from files
and from WebDataset shards, timm's by its ImageDataset and RandomResizedCropAndInterpolation, torchvision's by
ImageFolder's loader and RandomResizedCrop on PIL images. They take turns in one process on one thread. Decoders in
worker processes multiply all of them alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.datasets.folder import default_loader
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from kdaug.config import Data
from kdaug.data import EncodedImages, load_dataset
from kdaug.data.crops import RandomResizedCrop as ImageCrop
from kdaug.data.decode import decode
from views_benchmark.machine import load, this_machine

SIZE = 224
SHAPES = {"500 x 375": (500, 375, 48), "4000 x 3000": (4000, 3000, 4)}
Contender = Callable[[int], object]


def make(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """JPEG files of quality 90 with detail of all sizes, the coarser the stronger, as photographs have it."""
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        layers = np.zeros((height, width, 3), np.float32)
        for octave in range(1, 10):
            grain = Image.fromarray(random.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
            layers += np.asarray(grain.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 1.6**octave
        layers -= layers.min()
        paths.append(folder / "photos" / f"{number}.jpg")
        paths[-1].parent.mkdir(exist_ok=True)
        Image.fromarray((layers * (255 / layers.max())).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def in_shards(paths: list[Path], folder: Path) -> EncodedImages:
    """The same photos, by turns of two classes, in a WebDataset shard."""
    folder.mkdir()
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for number, path in enumerate(paths):
            tar.add(path, f"{number % 2}/{number:06}.jpg")
    with tarfile.open(folder / "val-0.tar", "w") as tar:
        tar.add(paths[0], "0/0.jpg")
    train = load_dataset(Data(name="shards", root=str(folder))).train
    assert isinstance(train, EncodedImages)
    return train


def contenders(paths: list[Path], folder: Path) -> dict[str, Contender]:
    """By name, what makes the view of the photo with a number; `folder` is empty, for what one of them needs."""
    crop, shards = ImageCrop(SIZE, 0, 0.08), in_shards(paths, folder / "shards").files
    timms = ImageDataset(str(paths[0].parents[1]))
    timms.transform = RandomResizedCropAndInterpolation(SIZE, interpolation="bicubic")
    crop = RandomResizedCrop(SIZE, interpolation=InterpolationMode.BICUBIC)
    return {
        "kdaug": lambda number: decode(paths[number], crop, 0, number),
        "kdaug, from shards": lambda number: decode(shards[number], crop, 0, number),
        "timm": lambda number: np.asarray(timms[number][0]),
        "torchvision": lambda number: np.asarray(crop(default_loader(str(paths[number])))),
    }


def measure(paths: list[Path], folder: Path, rounds: int) -> dict[str, list[float]]:
    """Photos a second in every round, by contender."""
    makers = contenders(paths, folder)
    speeds: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds + 1):
        for name, view in makers.items():
            began = time.perf_counter()
            for number in range(len(paths)):
                view(number)
            speeds[name].append(len(paths) / (time.perf_counter() - began))
    return {name: values[1:] for name, values in speeds.items()}  # the first is for warming up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    before, results = load(), {}
    with tempfile.TemporaryDirectory() as folder:
        sets = {"yours": sorted(given.photos.rglob("*.[jJ][pP]*[gG]"))} if given.photos else {}
        for name, (width, height, count) in {} if sets else SHAPES.items():
            place = Path(folder) / name.replace(" ", "")
            place.mkdir()
            sets[name] = make(place, width, height, count)
        for name, paths in sets.items():
            with tempfile.TemporaryDirectory() as empty:
                results[name] = measure(paths, Path(empty), given.rounds)
    print(f"{'photos a second, one thread':<30}" + "".join(f"{name:>16}" for name in results))
    for contender in next(iter(results.values())):
        medians = [statistics.median(speeds[contender]) for speeds in results.values()]
        print(f"{contender:<30}" + "".join(f"{median:>16.1f}" for median in medians))
    if given.json:
        report = {"size": SIZE, "machine": asdict(this_machine()), "load": before, "photos_per_second": results}
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
