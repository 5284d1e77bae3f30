"""Measures how long the check of photos before training takes: reading them, and comparing all pairs.

    python benchmarks/data_report.py FOLDER                 # an image folder
    python benchmarks/data_report.py FOLDER --json FILE     # also writes all measurements to FILE

CPU seconds are those of all threads. They depend less on what else runs on the machine than the seconds of the clock.
The pairs compared are those of random hashes, hardly any of which are similar.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from harness.machine import load_average, this_machine
from harness.report import write_json
from harness.script import positive_int, script_parser
from kdaug.config import Data
from kdaug.data.datasets import read_dataset
from kdaug.data.duplicates import find_copies
from kdaug.data.fingerprints import Fingerprints
from kdaug.data.report import make_report
from kdaug.data.resize import tall_images_rule


def seconds(function: Callable[[], object]) -> dict[str, float]:
    """Seconds of the clock and of the CPU that `function` takes."""
    clock, cpu = time.perf_counter(), time.process_time()
    function()
    return {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}


def random_fingerprints(count: int) -> Fingerprints:
    """Of `count` different images."""
    hashes = np.random.default_rng(0).integers(0, 1 << 64, count, np.uint64)
    return Fingerprints(np.arange(count).astype("V16"), hashes, np.zeros((count, 432), np.uint8), {})


def main() -> None:
    parser = script_parser(__doc__ or "")
    parser.add_argument("folder", type=Path, help="an image folder with one sub-folder per class")
    parser.add_argument("--pairs-of", type=positive_int, default=50_000, help="images compared; default: %(default)s")
    args = parser.parse_args()
    dataset = read_dataset(Data(name="folder", root=str(args.folder)), 0.1)
    images, load = len(dataset.train) + len(dataset.val), load_average()
    tall_images_rule()  # compiles the kernel
    report = seconds(lambda: make_report(dataset))
    prints, labels = random_fingerprints(args.pairs_of), np.zeros(args.pairs_of, np.int64)
    compare = seconds(lambda: find_copies(prints, labels))
    print(f"report on {images:,} images: {report['clock']:.2f} s, {report['cpu']:.2f} s of CPU time")
    print(f"comparing {args.pairs_of:,} images: {compare['clock']:.2f} s, {compare['cpu']:.2f} s of CPU time")
    if args.json:
        machine = {"machine": asdict(this_machine()), "load": load}
        measured = {"images": images, "report": report, "compared": args.pairs_of, "compare": compare}
        write_json(args.json, machine | {"folder": args.folder.name} | measured)


if __name__ == "__main__":
    main()
