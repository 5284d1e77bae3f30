"""The torchvision and timm spaces against the installed libraries: same pixels for every op, level and sign."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import timm.data.auto_augment as timm_auto
import torchvision.transforms as tv
import torchvision.transforms.autoaugment as tv_auto
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from kdaug import ViewPlan, apply
from kdaug.views.plan import RESAMPLES
from kdaug.views.space_tables import SPACES

CellPlan = Callable[..., ViewPlan]


def picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A smooth image with a little noise, so that filters and thresholds have something to do."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = np.stack([rows * 3 + columns, columns * 5, rows * columns // 3], axis=-1) % 256
    noise = np.random.default_rng(0).integers(-20, 21, waves.shape)
    image: NDArray[np.uint8] = np.clip(waves + noise, 5, 250).astype(np.uint8)
    return image


def their_name(op: str) -> str:
    special = {"autocontrast": "AutoContrast", "none": "Identity", "solarize-add": "SolarizeAdd"}
    return special.get(op) or "".join(part.capitalize() for part in op.split("-"))


# torchvision

META: dict[str, Callable[[tuple[int, int]], dict[str, Any]]] = {
    "torchvision": lambda size: tv.RandAugment()._augmentation_space(31, size),
    "torchvision-autoaugment": lambda size: tv.AutoAugment()._augmentation_space(10, size),
    "torchvision-wide": lambda size: tv.TrivialAugmentWide()._augmentation_space(31),
}


@pytest.mark.parametrize("space", META)
def test_op_lists_equal_torchvisions(space: str) -> None:
    names = [their_name(op) for op in SPACES[space].ops]
    if space == "torchvision-autoaugment":
        assert set(names) - {"Identity"} == set(META[space]((32, 32)))
    else:
        assert names == list(META[space]((32, 32)))


@pytest.mark.parametrize("size", [(32, 32), (37, 51)])
@pytest.mark.parametrize("space", META)
def test_every_op_at_every_level_equals_torchvision(space: str, size: tuple[int, int], plan_of_cells: CellPlan) -> None:
    image = picture(size)
    pillow = Image.fromarray(image)
    levels = range(int(SPACES[space].full_level) + 1)
    for op in SPACES[space].ops:
        if op == "none":
            continue
        magnitudes, signed = META[space](size)[their_name(op)]
        pairs = [(op, float(level)) for level in levels]
        for negative in (False, True):
            # they shift the content, ours and Pillow's shift is that of the source coordinates
            ours_negative = negative != op.startswith("translate")
            views = apply(np.repeat(image[None], len(pairs), 0), plan_of_cells(space, pairs, size, ours_negative))
            for level in levels:
                magnitude = float(magnitudes[level]) if magnitudes.ndim else 0.0
                magnitude = -magnitude if signed and negative else magnitude
                theirs = tv_auto._apply_op(pillow, their_name(op), magnitude, tv.InterpolationMode.NEAREST, None)
                assert_array_equal(views[level], np.asarray(theirs), err_msg=f"{op} at {level}, negative {negative}")


@pytest.mark.parametrize("side", [28, 96, 224, 331, 662])
def test_torchvision_shifts_are_truncated_from_float32(side: int, plan_of_cells: CellPlan) -> None:
    for space, bins in [("torchvision", 31), ("torchvision-autoaugment", 10)]:
        theirs = META[space]((side, side))["TranslateX"][0]
        plan = plan_of_cells(space, [("translate-x", float(level)) for level in range(bins)], (side, side))
        assert plan.argument[:, 0, 0].tolist() == [int(value) for value in theirs.tolist()]


@pytest.mark.parametrize("op", ["rotate", "shear-x", "brightness", "solarize", "posterize"])
def test_values_equal_torchvisions_float32(op: str, plan_of_cells: CellPlan) -> None:
    for space in META:
        theirs, _ = META[space]((32, 32))[their_name(op)]
        plan = plan_of_cells(space, [(op, float(level)) for level in range(len(theirs))], (32, 32))
        offset = 1 if op == "brightness" else 0
        assert plan.argument[:, 0, 0].tolist() == [offset + float(value) for value in theirs]


# timm


def test_the_op_list_equals_timms() -> None:
    ours = [their_name(op) + ("Rel" if op.startswith("translate") else "") for op in SPACES["timm"].ops]
    assert ours == timm_auto._RAND_TRANSFORMS


@pytest.mark.parametrize("resample", ["bilinear", "bicubic"])
@pytest.mark.parametrize("negative", [False, True])
def test_every_op_at_every_level_equals_timm(
    negative: bool, resample: str, plan_of_cells: CellPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = (33, 40)
    image = picture(size)
    pillow = Image.fromarray(image)
    monkeypatch.setattr(timm_auto.random, "random", lambda: 0.9 if negative else 0.1)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    for op in SPACES["timm"].ops:
        name = their_name(op) + ("Rel" if op.startswith("translate") else "")
        levels = [level / 2 for level in range(21) if op != "posterize" or level >= 5]  # Pillow refuses 0 bits
        pairs = [(op, level) for level in levels]
        plan = plan_of_cells("timm", pairs, size, negative, resample=resample == "bicubic")
        assert {RESAMPLES[code] for code in plan.resample.ravel()} == {resample}
        views = apply(np.repeat(image[None], len(pairs), 0), plan)
        for row, level in enumerate(levels):
            theirs = timm_auto.AugmentOp(
                name,
                prob=1.0,
                magnitude=level,
                hparams={"img_mean": (128, 128, 128), "interpolation": filters[resample]},
            )
            assert_array_equal(views[row], np.asarray(theirs(pillow)), err_msg=f"{op} at {level}")


def test_timm_clamps_where_we_refuse() -> None:
    at_10, at_28 = (
        np.asarray(timm_auto.AugmentOp("Solarize", prob=1.0, magnitude=m)(Image.fromarray(picture((8, 8)))))
        for m in (10, 28)
    )
    assert_array_equal(at_10, at_28)
