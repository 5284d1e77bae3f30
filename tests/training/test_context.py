"""The training context: how the student's input is normalized."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from support.images import write_noise

from kdaug.config import Data, Network, Recipe, Run
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve

HALF, IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("photos"), {"a": 3, "b": 3}, size=(8, 8))


@pytest.mark.parametrize(
    ("name", "pretrained", "expected"),
    [
        ("vit_tiny_patch16_224", True, HALF),
        ("vit_tiny_patch16_224", False, IMAGENET),
        ("resnet18", True, IMAGENET),
        ("wide_resnet10_1", True, IMAGENET),
    ],
)
def test_a_pretrained_student_keeps_its_normalization(
    photos: Path, name: str, pretrained: bool, expected: tuple[tuple[float, ...], tuple[float, ...]]
) -> None:
    recipe = Recipe(
        data=Data(name="folder", root=str(photos)), student=Network(name, pretrained), run=Run(dir="x", device="cpu")
    )
    info = build_context(resolve(recipe), Console(quiet=True)).network_info
    assert (info.mean, info.std) == expected


def test_gray_images_are_normalized_by_their_own_statistics(tmp_path: Path) -> None:
    recipe = Recipe(student=Network("vit_tiny_patch16_224", True), run=Run(dir=str(tmp_path), device="cpu"))
    context = build_context(resolve(recipe), Console(quiet=True))
    assert context.network_info.mean == context.dataset.mean
    assert len(context.network_info.mean) == 1
