"""Finished runs on photos of noise, and their photos; read only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.images import write_noise
from support.recipes import TINY, with_settings

from kdaug.training import train


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("photos"), {"a": 12, "b": 12, "c": 12})


def photo_settings(root: Path, run: Path) -> dict[str, Any]:
    """Settings of a run on the photos in `root`, by dotted name."""
    return {
        "data.name": "folder", "data.root": str(root), "data.train_images": None, "data.image_size": 16,
        "data.val_fraction": 0.3, "data.workers": 0, "student.name": "small_convnet", "optimization.global_batch": 8,
        "run.dir": str(run),
    }  # fmt: skip


@pytest.fixture(scope="session")
def photos_run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    return train(with_settings(TINY, photo_settings(photos, tmp_path_factory.mktemp("runs") / "run"))).directory


@pytest.fixture(scope="session")
def mixed_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ with photos of many sizes, file formats, modes and EXIF orientations."""
    root, random = tmp_path_factory.mktemp("mixed"), np.random.default_rng(5)
    formats = [("jpg", "RGB", {}), ("png", "RGB", {}), ("png", "L", {}), ("jpg", "L", {}), ("bmp", "RGB", {})]
    for split, count in (("train", 8), ("val", 10)):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                suffix, mode, options = formats[number % len(formats)]
                width, height = (int(side) for side in random.integers(9, 170, 2))
                pixels = Image.fromarray(random.integers(0, 256, (9, 9, 3), dtype=np.uint8))
                image = pixels.resize((width, height), Image.Resampling.BICUBIC).convert(mode)
                exif = image.getexif()
                exif[0x112] = number % 8 + 1
                if suffix in ("jpg", "png"):
                    options = {"exif": exif}
                image.save(root / split / name / f"{number:02}.{suffix}", **options)
    return root


@pytest.fixture(scope="session")
def large_photos_run(tmp_path_factory: pytest.TempPathFactory, mixed_photos: Path) -> Path:
    """Trained on `mixed_photos` at 16 pixels, evaluated at 24 in bfloat16 with 8 images at once."""
    run = tmp_path_factory.mktemp("runs") / "run"
    unusual = {"run.evaluate_size": 24, "optimization.precision": "bfloat16", "run.device_batch": 8}
    settings = photo_settings(mixed_photos, run) | unusual
    return train(with_settings(TINY, settings)).directory
