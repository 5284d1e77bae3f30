"""The command as people type it, real image files, and runs that several tests look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from kdaug.cli.main import main

TINY = (
    "--data.train-images 256 --optimization.global-batch 64 --optimization.epochs 1 --run.device cpu --run.threads 1"
).split()
"""The demo recipe in four steps."""

PHOTOS = (
    "--student.name wide_resnet10_1 --data.image-size 32 --data.workers 1 --optimization.global-batch 8 "
    "--optimization.epochs 1 --run.device cpu --run.threads 1"
).split()
"""The photos recipe in a few steps of a small network."""


@dataclass(frozen=True)
class Said:
    """What the command left behind: exit code, stdout, stderr."""

    code: int
    out: str
    err: str


@pytest.fixture
def kdaug(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`kdaug ARGUMENTS` in this process."""

    def call(*arguments: str | Path) -> Said:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code
        return Said(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Flags that make the demo recipe short."""
    return TINY


@pytest.fixture(scope="session")
def photos() -> list[str]:
    """Flags that make the photos recipe short."""
    return PHOTOS


def draw_shapes(folder: Path, count: int = 12) -> Path:
    """JPEGs of discs, squares and crosses in random colours on noise, of odd sizes, one sub-folder per class."""
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


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes, twelve JPEGs each; look only."""
    return draw_shapes(tmp_path_factory.mktemp("photos") / "shapes")


@pytest.fixture(scope="session")
def split_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with train/ and val/, of twelve and four JPEGs of each of three classes; look only."""
    root = tmp_path_factory.mktemp("split") / "shapes"
    draw_shapes(root / "train", 12)
    draw_shapes(root / "val", 4)
    return root


@pytest.fixture
def own_shapes(tmp_path: Path) -> Path:
    """The same, to be spoilt."""
    return draw_shapes(tmp_path / "shapes")


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`kdaug train demo`, in short, with its teacher; look only."""
    run = tmp_path_factory.mktemp("demo") / "taught"
    assert main(["train", "demo", *TINY, "--optimization.epochs", "2", "--run.dir", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def photos_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """`kdaug train photos` on the shapes, with its teacher; look only."""
    run = tmp_path_factory.mktemp("runs") / "photos"
    assert main(["train", "photos", *PHOTOS, "--data.root", str(shapes), "--run.dir", str(run)]) == 0
    return run
