"""Plan files: saving and loading keeps the plan and its bytes; invalid files are refused."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kdaug import InputError, ViewPlan, apply, create_policy, plan_of

SPEC = "randaugment-n2-m9@timm,pad-crop-4,flip,cutout-6,random-erasing-p0.5"


@pytest.fixture
def plan() -> ViewPlan:
    return create_policy(SPEC).plan(1, 2, np.arange(20), (12, 15))


@pytest.mark.parametrize("name", ["plan.npz", "plan without suffix"])
def test_a_loaded_plan_gives_the_same_bytes(plan: ViewPlan, tmp_path: Path, name: str) -> None:
    plan.save(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    loaded = ViewPlan.load(tmp_path / name)
    for part in ("op", "argument", "resample", "fill"):
        assert_array_equal(getattr(loaded, part), getattr(plan, part))
        assert getattr(loaded, part).dtype == getattr(plan, part).dtype
    assert (loaded.size, loaded.output_size) == (plan.size, plan.output_size)
    images = np.random.default_rng(0).integers(0, 256, (20, 12, 15, 3), np.uint8)
    assert_array_equal(apply(images, loaded), apply(images, plan))


@pytest.mark.parametrize(
    "plan",
    [
        plan_of([], (3, 4)),
        plan_of([[], []], (3, 4)),
        plan_of([[("crop", (1, 1, 2, 2))], [("flip",), ("crop", (0, 0, 2, 2))]], (3, 4)),
    ],
)
def test_empty_and_cropping_plans_can_be_saved(plan: ViewPlan, tmp_path: Path) -> None:
    plan.save(tmp_path / "p")
    loaded = ViewPlan.load(tmp_path / "p")
    assert (len(loaded), loaded.op.shape, loaded.size, loaded.output_size) == (
        len(plan), plan.op.shape, plan.size, plan.output_size,
    )  # fmt: skip


def rewrite(path: Path, **changes: Any) -> None:
    """Rewrites the file with some arrays replaced, or removed if None."""
    with np.load(path) as stored:
        arrays = dict(stored) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"fill": None}, "but a plan has .*fill"),
        ({"extra": np.zeros(1)}, "the file has .*extra"),
        ({"format": np.array(2)}, "the format is 2, but this version of kdaug reads format 1"),
        ({"op_names": np.array(["none", "spin"])}, "written by a version of kdaug with other ops"),
        ({"op": np.zeros((20, 6), np.int64)}, r"op is int64 \[20, 6\], but must be uint8"),
        ({"argument": np.zeros((20, 6, 3))}, "argument is float64"),
        ({"fill": np.zeros((19, 6, 3), np.uint8)}, "fill is uint8"),
        ({"op": np.zeros(20, np.uint8)}, "op is uint8"),
        ({"size": np.array([12, -1])}, "size is .* but must be height and width"),
        ({"size": np.array([12.0, 15.0])}, "but must be height and width"),
        ({"output_size": np.array([12, 16])}, r"but output_size is \(12, 16\)"),
        ({"op": np.full((20, 6), 99, np.uint8)}, "op code 99, which is unknown"),
        ({"resample": np.full((20, 6), 3, np.uint8)}, "resample code 3, which is unknown"),
        ({"argument": np.full((20, 6, 4), np.nan)}, "non-finite argument"),
        ({"argument": np.full((20, 6, 4), 0.5)}, "must be whole numbers"),
        ({"argument": np.full((20, 6, 4), -1.0)}, "crop of negative size"),
        ({"op": np.array([[None]])}, "cannot be read .*pickle"),
    ],
)
def test_an_invalid_plan_file_is_refused(
    plan: ViewPlan, tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "plan.npz"
    plan.save(path)
    rewrite(path, **changes)
    with pytest.raises(InputError, match=f"plan {path}: .*{sentence}"):
        ViewPlan.load(path)


def test_a_missing_damaged_or_other_file_is_refused(plan: ViewPlan, tmp_path: Path) -> None:
    path = tmp_path / "plan.npz"
    plan.save(path)
    complete = path.read_bytes()
    contents = [b"", b"hello", complete[: len(complete) // 2]]
    for position in range(40, len(complete), 97):
        contents.append(complete[:position] + bytes([complete[position] ^ 0xFF]) + complete[position + 1 :])
    refused = 0
    for content in contents:
        path.write_bytes(content)
        with suppress(InputError):
            ViewPlan.load(path)
            continue
        refused += 1
    assert refused > len(contents) / 2  # some bytes of a zip file have no meaning
    np.save(tmp_path / "array.npy", np.zeros(3))
    for name in ("nothing.npz", "array.npy"):
        with pytest.raises(InputError, match="cannot be read"):
            ViewPlan.load(tmp_path / name)


def test_plan_files_contain_no_pickle(plan: ViewPlan, tmp_path: Path) -> None:
    plan.save(tmp_path / "plan.npz")
    with np.load(tmp_path / "plan.npz", allow_pickle=False) as stored:
        assert set(stored.files) >= {field.name for field in dataclasses.fields(ViewPlan)} - {"chain_mix"}
