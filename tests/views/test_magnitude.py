"""`planned_magnitude`: 0 for unchanged views; in the paper's own space the drawn level / 10."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kdaug import apply, create_policy, plan_of
from kdaug.views.magnitude import planned_magnitude, visible_share


@pytest.mark.parametrize(
    ("steps", "magnitude"),
    [
        ([], 0),
        ([("flip",), ("crop", (1, 2, 40, 20)), ("autocontrast",), ("equalize",)], 0),
        ([("shear-x", -1.0)], 0.5),
        ([("shear-y", (1.0, -20.0))], 0.5),
        ([("translate-x", -10.0)], 0.25),
        ([("translate-y", 10.0)], 0.5),
        ([("translate-y", 500.0)], 1),
        ([("rotate", -45.0)], 0.5),
        ([("invert",)], 1),
        ([("solarize", 192)], 0.25),
        ([("posterize", 6)], 0.25),
        ([("posterize", 8), ("solarize", 256), ("color", 1.0), ("rotate", 0.0)], 0),
        ([("contrast", 0.5)], 0.5),
        ([("brightness", 1.9), ("sharpness", 0.1), ("color", 7.0)], 2.8),
        ([("cutout", (3, -2, 5))], 0.25),
        ([("erase", (0, 0, 20, 10))], 0.5),
        ([("solarize-add", 32)], 0.25),
        ([("translate-x", 20.0), ("rotate", 9.0)], 0.6),
    ],
)
def test_every_op_adds_its_fraction(steps: list[tuple[Any, ...]], magnitude: float) -> None:
    assert planned_magnitude(plan_of([steps], size=(20, 40))) == pytest.approx([magnitude])


@pytest.mark.parametrize("op", ["shear-x", "shear-y", "translate-x", "translate-y", "cutout"])
def test_in_paper_geometric_it_is_the_drawn_level(op: str) -> None:
    policy = create_policy("randaugment-n1-m6@paper-geometric")
    plan = policy.plan(0, 0, np.arange(4000), (1000, 1000))
    magnitudes = planned_magnitude(plan)[[op == steps[0][0] for steps in map(plan.steps, range(len(plan)))]]
    assert len(magnitudes) > 600
    assert 0 < magnitudes.min() < magnitudes.max() <= 0.6005, "at most M / 10, a cutout rounded to a pixel"
    assert np.quantile(magnitudes, [0.25, 0.5, 0.75]) == pytest.approx([0.15, 0.3, 0.45], abs=0.03), "uniform"


@pytest.mark.parametrize("left", [-50, -7, 0, 13, 40])
@pytest.mark.parametrize("top", [-20, -5, 0, 19])
def test_visible_share_is_that_of_the_pixels(left: int, top: int) -> None:
    """Counted in a crop of a white image with black around it."""
    plan = plan_of([[("flip",), ("crop", (left, top, 40, 20))], [("flip",)]], size=(20, 40))
    white = apply(np.full((2, 20, 40, 1), 255, np.uint8), plan) == 255
    assert visible_share(plan).tolist() == white.mean(axis=(1, 2, 3)).tolist()
