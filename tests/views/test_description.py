"""Descriptions of policies and spaces as text."""

from __future__ import annotations

from typing import Any

import pytest

from kdaug import create_policy
from kdaug.views.description import SPACE_DESCRIPTIONS, describe, describe_space, format_argument, format_op
from kdaug.views.space_tables import SPACES


@pytest.mark.parametrize(
    ("space", "op", "level", "text"),
    [
        ("tf-efficientnet", "rotate", 9, "± 27°"),
        ("tf-efficientnet", "translate-x", 28, "± 280 px"),
        ("tf-efficientnet", "posterize", 2, "black"),
        ("tf-efficientnet", "posterize", 9, "3 bits"),
        ("tf-efficientnet", "posterize", 28, "unchanged"),
        ("tf-efficientnet", "solarize", 10, "unchanged"),
        ("tf-efficientnet", "solarize", 9, "inverts ≥ 230"),
        ("tf-efficientnet", "solarize-add", 9, "+ 99 below 128"),
        ("tf-efficientnet", "color", 9, "× 1.72"),
        ("tf-efficientnet", "cutout", 9, "72 px"),
        ("tf-efficientnet", "invert", 9, "applied"),
        ("tf-efficientnet", "none", 9, "nothing"),
        ("timm", "translate-x", 10, "± 45 px"),
        ("timm", "translate-y", 10, "± 22.5 px"),
        ("timm", "shear-x", 10, "± 0.3"),
        ("torchvision", "brightness", 10, "× 1 ± 0.3"),
        ("torchvision", "translate-x", 30, "± 45 px"),
        ("torchvision-autoaugment", "posterize", 9, "4 bits"),
        ("fast-autoaugment", "rotate", 0.5, "± 0°"),
        ("fast-autoaugment", "rotate", 0, "± 30°"),
        ("fast-autoaugment", "cutout", 0, "0 px"),
        ("fast-autoaugment", "cutout", 1, "21 px"),
        ("autoaugment-cifar", "cutout", 9, "18 px"),
        ("autoaugment-cifar", "posterize", 9, "1 bit"),
        ("paper-geometric", "shear-x", 3, "up to ± 27°"),
        ("paper-geometric", "translate-x", 3, "up to ± 30 px"),
        ("paper-geometric", "cutout", 3, "up to 15 px"),
    ],
)
def test_format_argument(space: str, op: str, level: float, text: str) -> None:
    assert format_argument(SPACES[space], op, level, (50, 100)) == text


def test_randaugment_is_described_at_its_magnitude() -> None:
    (part,) = describe(create_policy("flip,randaugment14-n2-m9@tf-efficientnet"), (32, 32))
    assert part.levels == (9.0,)
    assert len(part.ops) == len(part.table) == 14
    assert part.sub_policies == ()


@pytest.mark.parametrize("space", SPACES)
def test_every_space_has_a_table_of_increasing_levels(space: str) -> None:
    part = describe_space(space, (32, 32))
    assert part.levels == tuple(sorted(part.levels))
    assert all(len(row) == len(part.levels) for row in part.table)


def test_sub_policies_and_segments_are_described() -> None:
    (part,) = describe(create_policy("autoaugment-cifar10"), (32, 32))
    assert len(part.sub_policies) == 25
    assert part.sub_policies[1] == "rotate 2 (70%), then translate-x 9 (30%)"
    (part,) = describe(create_policy("pba-cifar10", epochs=200), (32, 32))
    assert part.kind == "segments"
    assert part.sub_policies[0] == "epoch 0 to 11: nothing"
    assert part.sub_policies[4].startswith("epoch 74: rotate 0 (40%), translate-y 0 (60%)")


def test_every_space_is_described() -> None:
    assert SPACE_DESCRIPTIONS.keys() == SPACES.keys()


def test_a_policy_without_levels_has_no_description() -> None:
    assert describe(create_policy("pad-crop-4,flip"), (32, 32)) == []


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (("shear-x", 0.306), "shear-x 0.31"),
        (("cutout", (3.0, 4.0, 9.0)), "cutout 9 px"),
        (("crop", (2.0, -1.0, 28.0, 28.0)), "crop +2 -1"),
        (("erase", (1.0, 2.0, 3.0, 4.0)), "erase 1.00"),
        (("flip",), "flip"),
    ],
)
def test_an_op_is_formatted_with_its_main_argument(op: tuple[Any, ...], text: str) -> None:
    assert format_op(op) == text
