"""Image folders, written by the tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw_shapes(folder: Path, count: int = 12) -> Path:
    """JPEGs of discs, squares and crosses in random colors on noise, of odd sizes, one sub-folder per class."""
    random = np.random.default_rng(0)
    for name in ("cross", "disc", "square"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            width, height = (int(side) for side in random.integers(40, 90, 2))
            image = Image.fromarray(random.integers(0, 90, (height, width, 3), dtype=np.uint8))
            color = tuple(int(v) for v in random.integers(150, 256, 3))
            draw = ImageDraw.Draw(image)
            if name == "disc":
                draw.ellipse((8, 8, 34, 34), fill=color)
            elif name == "square":
                draw.rectangle((8, 8, 34, 34), fill=color)
            else:
                draw.line((8, 8, 34, 34), color, 6)
                draw.line((8, 34, 34, 8), color, 6)
            image.save(folder / name / f"{number:02}.jpg", quality=92)
    return folder


def write_noise(folder: Path, counts: Mapping[str, int], size: tuple[int, int] = (36, 30), suffix: str = "png") -> Path:
    """`counts[name]` images of noise, each (width, height) = `size`, in folder/name; each class has its own color."""
    random = np.random.default_rng(2)
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 120, (size[1], size[0], 3), dtype=np.uint8)
            pixels[..., label % 3] += 100
            Image.fromarray(pixels).save(folder / name / f"{number:03}.{suffix}")
    return folder
