"""Every argument of every space against op_ranges.json: linear between the ends, then rounded."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kdaug import ViewPlan
from kdaug.views.space_tables import RANDAUGMENT_PAPER_OPS, SPACES

SYSTEMS: dict[str, Any] = json.loads(Path(__file__).with_name("op_ranges.json").read_text())["systems"]
SIZE = (48, 80)

# space -> (system of op_ranges.json, level of the far end, levels to try)
TENTHS = [level / 2 for level in range(21)]
SOURCES: dict[str, tuple[str, float, list[float]]] = {
    "autoaugment-cifar": ("autoaugment_cifar_pil", 10, [float(level) for level in range(11)]),
    "pba": ("pba", 10, [float(level) for level in range(11)]),
    "fast-autoaugment": ("fast_autoaugment", 1, [0, 0.0249, 0.3, 0.5, 0.74, 0.9999, 1]),
    "tf-efficientnet": ("efficientnet_tpu_randaugment", 10, [*TENTHS, 15, 17, 28, 36]),
    "tf-efficientnet-autoaugment": ("efficientnet_tpu_autoaugment", 10, [float(level) for level in range(11)]),
    "timm": ("timm", 10, [*TENTHS, 9.99]),
}
CELLS = [
    (space, op)
    for space, (system, _, _) in SOURCES.items()
    for op in SPACES[space].ops
    if SPACES[space].ops[op] is not None
]


def published(system: str, op: str) -> dict[str, Any]:
    ops = SYSTEMS[system]["ops"]
    row: dict[str, Any] = ops.get(op) or next(ops[names] for names in ops if op in names.split("/"))
    return row


def rounded(rounding: str, value: float, low: float) -> float:
    """`value` rounded as in the source: the difference to `low`, the whole value, or not at all."""
    if "int(" not in rounding:
        return value
    if re.match(r"\d+ - int", rounding):  # 256 - int(level * 256 / 10)
        return low - int(low - value)
    return float(int(value))


@pytest.mark.parametrize(("space", "op"), CELLS)
@pytest.mark.parametrize("negative", [False, True])
def test_arguments_are_the_published_ones(
    space: str, op: str, negative: bool, plan_of_cells: Callable[..., ViewPlan]
) -> None:
    system, full, levels = SOURCES[space]
    row = published(system, op)
    low, high = row["at_level_0"], row["at_level_max"]
    sign = -1 if negative and row["sign"] == "random_50_50" else 1
    side = {"x": SIZE[1], "y": SIZE[0]}[op[-1]] if "fraction" in row["arg"] and op != "cutout" else 1
    # sources compute level*range/10 or (level/10)*range; rounded here, so that truncation has no rounding errors
    values = [
        rounded(row["rounding"], math.floor(1e9 * (low + level * (high - low) / full) + 0.5) / 1e9, low)
        for level in levels
    ]
    plan = plan_of_cells(space, [(op, level) for level in levels], SIZE, negative)
    if op == "cutout":
        check_cutouts(space, plan, values)
    else:
        assert_allclose(plan.argument[:, 0, 0], np.array(values) * side * sign, rtol=1e-12, atol=1e-12)
        assert not plan.argument[:, 0, 1:].any()


def check_cutouts(space: str, plan: ViewPlan, values: list[float]) -> None:
    """Cutouts with the middle random word as position: centered at row 24, column 40."""
    x, y, side, height = plan.argument[:, 0].T
    if space == "fast-autoaugment":
        for row, fraction in enumerate(values):
            v = fraction * SIZE[1]
            left, top = int(max(0, 80 + (1 - 80) * 0.5 - v / 2)), int(max(0, 48 + (1 - 48) * 0.5 - v / 2))
            right, bottom = int(min(80, left + v)), int(min(48, top + v))
            expected = (left, top, right - left + 1, bottom - top + 1) if v else (left, top, 0, 0)
            assert (x[row], y[row], side[row], height[row]) == expected
        return
    half = np.array(values) if space.startswith("tf") else np.array(values) // 2
    assert_array_equal(side, 2 * half)
    assert_array_equal(x + half, np.full(len(values), 40))
    assert_array_equal(y + half, np.full(len(values), 24))


@pytest.mark.parametrize(
    ("space", "system", "listed"),
    [("tf-efficientnet", "efficientnet_tpu_randaugment", "op_list"), ("timm", "timm", "op_list_randaugment")],
)
def test_op_lists_are_the_published_ones_in_their_order(space: str, system: str, listed: str) -> None:
    assert list(SPACES[space].ops) == [name.split(" ")[0] for name in SYSTEMS[system][listed]]


def test_the_other_op_lists_are_the_published_ones() -> None:
    def known(names: list[str]) -> list[str]:
        return [name.replace("identity", "none") for name in names]

    assert list(SPACES["torchvision"].ops) == known(SYSTEMS["torchvision"]["randaugment"]["op_list"])
    assert list(RANDAUGMENT_PAPER_OPS) == known(SYSTEMS["randaugment_paper"]["op_list"])
    assert list(SPACES["paper-geometric"].ops) == SYSTEMS["kd_paper_self_designed"]["op_list"]
    for space in ("autoaugment-cifar", "pba", "fast-autoaugment"):
        system = SOURCES[space][0]
        assert set(SPACES[space].ops) == set(SYSTEMS[system]["ops"])
    assert set(SPACES["tf-efficientnet-autoaugment"].ops) == set(SYSTEMS["efficientnet_tpu_autoaugment"]["ops"])


@pytest.mark.parametrize("space", SPACES)
def test_only_published_signs_are_drawn(space: str) -> None:
    if space in ("paper-geometric", "timm-increasing", "timm-augmix"):  # test_timm_spaces.py has the last two
        return
    system = SOURCES[space][0] if space in SOURCES else "torchvision"
    for op, row in SPACES[space].ops.items():
        if row is not None:
            assert row.signed == (published(system, op)["sign"] == "random_50_50"), op


@pytest.mark.parametrize(
    ("space", "fill", "resample"),
    [
        ("autoaugment-cifar", (1, 2, 3), {0}),
        ("pba", (1, 2, 3), {0}),
        ("paper-geometric", (1, 2, 3), {0}),
        ("tf-efficientnet", (128, 128, 128), {0}),
        ("fast-autoaugment", (0, 0, 0), {0}),
        ("torchvision", (0, 0, 0), {0}),
        ("torchvision-wide", (0, 0, 0), {0}),
        ("timm", (128, 128, 128), {1, 2}),
    ],
)
def test_fill_and_filter_belong_to_the_space(
    space: str, fill: tuple[int, ...], resample: set[int], plan_of_cells: Callable[..., ViewPlan]
) -> None:
    pairs = [(op, 1.0) for op in SPACES[space].ops]
    plans = [plan_of_cells(space, pairs, SIZE, resample=word) for word in (0, 1)]
    assert {int(code) for plan in plans for code in plan.resample.ravel()} == resample
    for row, (op, _) in enumerate(pairs):
        special = (125, 123, 114) if (space, op) == ("fast-autoaugment", "cutout") else fill
        assert tuple(plans[0].fill[row, 0].tolist()) == special
