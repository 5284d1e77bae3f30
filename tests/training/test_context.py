"""The training context: how the student's input is normalized."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from support.images import write_noise

from kdaug.config import Data, Network, Recipe, Run
from kdaug.training.context import build_context
from kdaug.training.evaluation import evaluation_batch
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


@pytest.mark.parametrize(("side", "images"), [(32, 256), (224, 32), (600, 4), (2000, 1)])
def test_a_cpu_evaluates_fewer_large_images_at_once(photos: Path, side: int, images: int) -> None:
    recipe = Recipe(data=Data(name="folder", root=str(photos), image_size=side), run=Run(dir="x", device="cpu"))
    context = build_context(resolve(recipe), Console(quiet=True))
    assert evaluation_batch(context) == images
    few = replace(context, recipe=replace(recipe, run=replace(recipe.run, device_batch=3)))
    assert evaluation_batch(few) == min(3, images)
