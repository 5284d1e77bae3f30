"""Small image files on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tree = Callable[[dict[str, int]], Path]


@pytest.fixture
def image_tree(tmp_path: Path) -> Tree:
    """image_tree({"cat": 2, ...}) writes folders of 4 x 4 PNG files 0.png, 1.png, ...; all images are different."""

    def write(counts: dict[str, int]) -> Path:
        root = tmp_path / "photos"
        gray = 0
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((4, 4, 3), gray, np.uint8)).save(root / folder / f"{number}.png")
                gray += 1
        return root

    return write
