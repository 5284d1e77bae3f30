"""What is prepared before the first step."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from kdaug.config import Data, Network, Recipe, Run
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve

HALF, IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(3):
            Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("name", "pretrained", "wanted"),
    [
        ("vit_tiny_patch16_224", True, HALF),
        ("vit_tiny_patch16_224", False, IMAGENET),
        ("resnet18", True, IMAGENET),
        ("wide_resnet10_1", True, IMAGENET),
    ],
)
def test_a_pretrained_student_is_fed_as_it_was_before(
    photos: Path, name: str, pretrained: bool, wanted: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    recipe = Recipe(
        data=Data(name="folder", root=str(photos)), student=Network(name, pretrained), run=Run(dir="x", device="cpu")
    )
    card = build_context(resolve(recipe), Console(file=io.StringIO())).card
    assert (card.mean, card.std) == wanted


def test_grey_images_keep_their_own_statistics(tmp_path: Path) -> None:
    recipe = Recipe(student=Network("vit_tiny_patch16_224", True), run=Run(dir=str(tmp_path), device="cpu"))
    context = build_context(resolve(recipe), Console(file=io.StringIO()))
    assert context.card.mean == context.dataset.mean
    assert len(context.card.mean) == 1
