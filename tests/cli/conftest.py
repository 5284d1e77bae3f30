"""Short commands, image folders and finished runs for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.images import draw_shapes
from support.recipes import DEMO_FLAGS, PHOTOS_FLAGS

from kdaug.cli.main import main


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of three classes, twelve JPEGs each; read only."""
    return draw_shapes(tmp_path_factory.mktemp("photos") / "shapes")


@pytest.fixture(scope="session")
def split_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder with train/ and val/, of twelve and four JPEGs of each of three classes; read only."""
    root = tmp_path_factory.mktemp("split") / "shapes"
    draw_shapes(root / "train", 12)
    draw_shapes(root / "val", 4)
    return root


@pytest.fixture
def shapes_copy(tmp_path: Path) -> Path:
    """A copy of `shapes` that a test may change."""
    return draw_shapes(tmp_path / "shapes")


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short `kdaug train demo`, with its teacher; read only."""
    run = tmp_path_factory.mktemp("demo") / "student"
    assert main(["train", "demo", *DEMO_FLAGS, "--optimization.epochs", "2", "--run.dir", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def photos_run(tmp_path_factory: pytest.TempPathFactory, shapes: Path) -> Path:
    """`kdaug train photos` on `shapes`, with its teacher; read only."""
    run = tmp_path_factory.mktemp("runs") / "photos"
    assert main(["train", "photos", *PHOTOS_FLAGS, "--data.root", str(shapes), "--run.dir", str(run)]) == 0
    return run
