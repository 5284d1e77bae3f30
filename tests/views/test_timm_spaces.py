"""The ops of timm's strings against the installed timm: same lists, and same pixels at every level and sign."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import timm.data.auto_augment as timm_auto
from numpy.testing import assert_array_equal
from PIL import Image

from kdaug import ViewPlan, apply
from kdaug.views.space_tables import SPACES

CellPlan = Callable[..., ViewPlan]
INCREASING = ("posterize", "solarize", "color", "contrast", "brightness", "sharpness")
SIZE = (23, 30)
NAMES = {"autocontrast": "AutoContrast", "translate-x": "TranslateXRel", "translate-y": "TranslateYRel"}


def timm_name(space: str, op: str) -> str:
    name = NAMES.get(op) or "".join(part.capitalize() for part in op.split("-"))
    return f"{name}Increasing" if op in INCREASING and space != "timm" else name


@pytest.mark.parametrize(
    ("space", "listed"),
    [("timm-increasing", timm_auto._RAND_INCREASING_TRANSFORMS), ("timm-augmix", timm_auto._AUGMIX_TRANSFORMS)],
)
def test_op_lists_equal_timms(space: str, listed: list[str]) -> None:
    assert [timm_name(space, op) for op in SPACES[space].ops] == listed


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("space", ["timm", "timm-increasing", "timm-augmix"])
def test_every_op_equals_timm_also_above_level_10(
    space: str, negative: bool, plan_of_cells: CellPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    monkeypatch.setattr(timm_auto.random, "random", lambda: 0.9 if negative else 0.1)
    hparams = {
        "img_mean": (128, 128, 128),
        "magnitude_max": 30,
        "interpolation": Image.Resampling.BICUBIC,
        "translate_pct": 0.3 if space == "timm-augmix" else 0.45,  # as timm's create_transform sets it for AugMix
    }
    for op in SPACES[space].ops:
        levels = [level for level in np.arange(0, 30.5, 0.75).tolist() if keeps_bits(space, op, level)]
        plan = plan_of_cells(space, [(op, level) for level in levels], SIZE, negative, resample=1)
        views = apply(np.repeat(image[None], len(levels), 0), plan)
        for view, level in zip(views, levels, strict=True):
            theirs = timm_auto.AugmentOp(timm_name(space, op), prob=1.0, magnitude=level, hparams=hparams)
            assert_array_equal(view, np.asarray(theirs(Image.fromarray(image))), err_msg=f"{op} at {level}")


def keeps_bits(space: str, op: str, level: float) -> bool:
    """Whether posterize keeps a bit: Pillow refuses to keep none, as timm asks for at the end of the scale."""
    bits = int(level / 10 * 4)
    return op != "posterize" or (bits if space == "timm" else 4 - bits) >= 1


def test_posterize_gives_black_where_pillow_refuses(plan_of_cells: CellPlan) -> None:
    plan = plan_of_cells("timm-increasing", [("posterize", 10.0), ("posterize", 30.0)], (4, 4))
    assert not apply(np.full((2, 4, 4, 3), 200, np.uint8), plan).any()
    assert plan.argument[:, 0, 0].tolist() == [0, 0]
