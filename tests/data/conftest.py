"""Small image files on disk, made by the tests themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tree = Callable[[dict[str, int]], Path]


@pytest.fixture
def image_tree(tmp_path: Path) -> Tree:
    """Makes folders of so many 4 x 4 PNG files each, named 0.png, 1.png, ...; each image has a grey of its own."""

    def make(counts: dict[str, int]) -> Path:
        root = tmp_path / "photos"
        grey = 0
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((4, 4, 3), grey, np.uint8)).save(root / folder / f"{number}.png")
                grey += 1
        return root

    return make
