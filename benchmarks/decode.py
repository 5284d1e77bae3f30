"""Measures decoding: photos per second on one thread, from a JPEG file to a random crop of 224 pixels.

    python benchmarks/decode.py                        # on synthetic photos, 500 x 375 and 4000 x 3000
    python benchmarks/decode.py --photos FOLDER        # on your own JPEG files
    python benchmarks/decode.py --json FILE            # also writes all rounds to FILE

Each contender opens the file, takes an Inception crop and resizes it bicubically: kdaug with kdaug.data.decode, from
files and from WebDataset shards; timm with ImageDataset and RandomResizedCropAndInterpolation; torchvision with
ImageFolder's loader and RandomResizedCrop on PIL images. All run in every round, in one process on one thread. Worker
processes for decoding would speed up all alike. The last lines are ratios of medians: above 1, kdaug is faster.
"""

from __future__ import annotations

import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from timm.data import ImageDataset
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.datasets.folder import default_loader
from torchvision.transforms import InterpolationMode, RandomResizedCrop

from harness.machine import load_average, this_machine
from harness.report import write_json
from harness.rounds import run_rounds
from harness.script import positive_int, script_parser
from kdaug.config import Data
from kdaug.data import EncodedImages, load_dataset
from kdaug.data.crops import RandomResizedCrop as KdaugCrop
from kdaug.data.decode import decode

SIZE = 224
SHAPES = {"500 x 375": (500, 375, 48), "4000 x 3000": (4000, 3000, 4)}
"""Width, height and number of the synthetic photos."""
PEERS = ("timm", "torchvision")
Contender = Callable[[int], object]


def write_photos(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """Writes JPEG files of quality 90 with detail at all scales, the coarser the stronger, as in photographs."""
    generator, paths = np.random.default_rng(0), []
    for number in range(count):
        pixels = np.zeros((height, width, 3), np.float32)
        for octave in range(1, 10):
            noise = Image.fromarray(generator.integers(0, 256, (2**octave, 2**octave, 3), np.uint8))
            pixels += np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC), np.float32) / 1.6**octave
        pixels -= pixels.min()
        path = folder / "photos" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * (255 / pixels.max())).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def write_shards(paths: list[Path], folder: Path) -> EncodedImages:
    """The same photos in a WebDataset shard, with two alternating classes."""
    folder.mkdir()
    with tarfile.open(folder / "train-0.tar", "w") as tar:
        for number, path in enumerate(paths):
            tar.add(path, f"{number % 2}/{number:06}.jpg")
    with tarfile.open(folder / "val-0.tar", "w") as tar:
        tar.add(paths[0], "0/0.jpg")
    train = load_dataset(Data(name="shards", root=str(folder))).train
    assert isinstance(train, EncodedImages)
    return train


def make_contenders(paths: list[Path], folder: Path) -> dict[str, Contender]:
    """By name, a function from the number of a photo to its crop; the shard is written to `folder`."""
    kdaug_crop, shards = KdaugCrop(SIZE, 0, 0.08), write_shards(paths, folder / "shards").files
    timm_images = ImageDataset(str(paths[0].parents[1]))
    timm_images.transform = RandomResizedCropAndInterpolation(SIZE, interpolation="bicubic")
    torchvision_crop = RandomResizedCrop(SIZE, interpolation=InterpolationMode.BICUBIC)
    return {
        "kdaug": lambda number: decode(paths[number], kdaug_crop, 0, number),
        "kdaug, from shards": lambda number: decode(shards[number], kdaug_crop, 0, number),
        "timm": lambda number: np.asarray(timm_images[number][0]),
        "torchvision": lambda number: np.asarray(torchvision_crop(default_loader(str(paths[number])))),
    }


def photos_per_second(contender: Contender, count: int) -> float:
    start = time.perf_counter()
    for number in range(count):
        contender(number)
    return count / (time.perf_counter() - start)


def measure(paths: list[Path], rounds: int, title: str) -> dict[str, list[float]]:
    """Photos per second in every round, by contender."""
    with tempfile.TemporaryDirectory() as folder:
        contenders = make_contenders(paths, Path(folder))
        measures = [partial(photos_per_second, contender, len(paths)) for contender in contenders.values()]
        for warm_up in measures:
            warm_up()
        spreads = run_rounds(measures, rounds, f"{title}, ")
    return {name: spread.rounds for name, spread in zip(contenders, spreads, strict=True)}


def main() -> None:
    parser = script_parser(__doc__ or "")
    parser.add_argument(
        "--photos", type=Path, metavar="FOLDER", help="folder of JPEG files (default: synthetic photos)"
    )
    parser.add_argument("--rounds", type=positive_int, default=11, help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(1)
    load = load_average()
    with tempfile.TemporaryDirectory() as folder:
        if args.photos:
            photos = {"yours": sorted(args.photos.rglob("*.[jJ][pP]*[gG]"))}
        else:
            photos = {name: write_photos(Path(folder) / name, *shape) for name, shape in SHAPES.items()}
        results = {name: measure(paths, args.rounds, name) for name, paths in photos.items()}
    print(f"{'photos per second, one thread':<30}" + "".join(f"{name:>16}" for name in results))
    for contender in next(iter(results.values())):
        medians = [statistics.median(speeds[contender]) for speeds in results.values()]
        print(f"{contender:<30}" + "".join(f"{median:>16.1f}" for median in medians))
    for peer in PEERS:
        ratios = [statistics.median(speeds["kdaug"]) / statistics.median(speeds[peer]) for speeds in results.values()]
        print(f"{'kdaug / ' + peer:<30}" + "".join(f"{ratio:>16.2f}" for ratio in ratios))
    if args.json:
        report = {"size": SIZE, "machine": asdict(this_machine()), "load": load, "photos_per_second": results}
        write_json(args.json, report)


if __name__ == "__main__":
    main()
