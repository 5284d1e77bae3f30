"""Image folders, written by the tests."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import ExifTags, Image, ImageDraw

from kdaug.data.datasets import load_bundled


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


def bundled_photos() -> dict[str, list[Image.Image]]:
    """Bundled images of 7 classes, 14 to 2 of each, enlarged to 96 x 128 pixels."""
    train, classes = load_bundled().train, load_bundled().classes
    return {
        classes[label].replace("/", " or "): [
            Image.fromarray(train.images[row][..., 0]).resize((96, 128), Image.Resampling.BICUBIC)
            for row in np.flatnonzero(train.labels == label)[:count]
        ]
        for label, count in enumerate((14, 12, 10, 10, 8, 6, 2))
    }


def write_phone_photos(folder: Path, photos: Mapping[str, Sequence[Image.Image]]) -> Path:
    """`photos` as a phone and its owner leave them: JPEG files in one sub-folder per class.

    The first of each class is stored on its side with the EXIF orientation. In the first class one is a PNG with
    transparency, in the second one is broken and one is there twice, in the third one is a HEIC file.
    """
    pillow_heif.register_heif_opener()
    for name, images in photos.items():
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(images):
            photo, exif = image.convert("RGB"), Image.Exif()
            if number == 0:
                photo, exif[ExifTags.Base.Orientation] = photo.transpose(Image.Transpose.ROTATE_90), 6
            photo.save(folder / name / f"IMG_{number:04}.jpg", quality=92, exif=exif)
    first, second, third, *_ = sorted(folder.iterdir())
    with Image.open(third / "IMG_0001.jpg") as photo:
        photo.save(third / "IMG_0001.heic")
    (third / "IMG_0001.jpg").unlink()
    with Image.open(first / "IMG_0001.jpg") as photo:
        photo.putalpha(200)
        photo.save(first / "IMG_0001.png")
    (first / "IMG_0001.jpg").unlink()
    (second / "IMG_0002 broken.jpg").write_bytes((second / "IMG_0002.jpg").read_bytes()[:500])
    shutil.copy(second / "IMG_0003.jpg", second / "IMG_0003 (copy).jpg")
    return folder
