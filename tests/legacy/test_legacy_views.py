"""Plan and policy files written by the first version load and give the same views."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kdaug import ViewPlan, apply, create_policy
from kdaug.views.policies import pin_policy_files

FOLDER = Path(__file__).parent


def test_a_plan_file_gives_the_same_bytes() -> None:
    """The plan of randaugment-n2-m5@paper-geometric,pad-crop-2,flip,cutout-8 for four images."""
    images = np.arange(4 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(4, 28, 28, 1)
    views = apply(images, ViewPlan.load(FOLDER / "plan.npz"))
    digest = hashlib.sha256(views.tobytes()).hexdigest()
    assert digest == "c41962fb416f55f56382232084e2f6cc488e85c89f4e661088d90095cd04ce66"


def test_a_plan_is_saved_in_the_same_format(tmp_path: Path) -> None:
    ViewPlan.load(FOLDER / "plan.npz").save(tmp_path / "plan.npz")
    with np.load(FOLDER / "plan.npz") as old, np.load(tmp_path / "plan.npz") as new:
        assert new.files == old.files
        for name in old.files:
            assert_array_equal(new[name][: len(old[name])] if name == "op_names" else new[name], old[name])
            assert new[name].dtype.kind == old[name].dtype.kind


@pytest.mark.parametrize(
    ("name", "fingerprint", "steps", "resample", "fill"),
    [
        (
            "policy.yaml", "8c8969472a",
            [
                [("invert",)],
                [("invert",)],
                [("color", 0.7299999999999999)],
                [],
                [("shear-x", (-0.3, 0.0)), ("equalize",)],
                [("color", 0.7299999999999999)],
            ],
            [[1, 2, 1], [1, 1, 2], [2, 1, 1], [1, 2, 1], [2, 2, 2], [2, 2, 1]],
            [128, 128, 128],
        ),
        (
            "policy.json", "7f53514e55",
            [
                [("translate-y", -9.0), ("posterize", 2.0)],
                [("translate-y", -9.0)],
                [("cutout", (-6.0, 0.0, 12.0))],
                [("translate-y", 9.0), ("posterize", 2.0)],
                [("cutout", (6.0, 21.0, 12.0))],
                [("translate-y", -9.0)],
            ],
            [[0, 0]] * 6,
            [125, 122, 113],
        ),
    ],
)  # fmt: skip
def test_a_policy_file_gives_the_same_plan(
    name: str, fingerprint: str, steps: list[Any], resample: list[list[int]], fill: list[int]
) -> None:
    spec = f"file:{FOLDER / name}#{fingerprint}"
    assert pin_policy_files(f"file:{FOLDER / name}") == spec
    plan = create_policy(spec).plan(seed=3, epoch=1, indices=np.arange(6), size=(28, 28))
    assert [plan.steps(row) for row in range(6)] == steps
    assert plan.resample.tolist() == resample
    assert (plan.fill == fill).all()
