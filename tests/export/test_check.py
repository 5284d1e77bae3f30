"""The comparison with the run: what it measures, what it refuses, and that a refused file leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdaug import InputError
from kdaug.export.check import TOLERANCE, compare, write_checked_file
from kdaug.export.reference import Reference


def reference_of(logits: Tensor) -> Reference:
    """Image i has the value i, so that a prediction can look up its logits."""
    images = torch.arange(len(logits), dtype=torch.uint8)[:, None, None, None]
    return Reference(images, logits, "images of the test", None)


def lookup(logits: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda images: logits[images[:, 0, 0, 0].long()]


LOGITS = torch.tensor([[10.0, 0.0, -4.0], [1.0, 2.0, 3.0], [0.0, 7.0, 7.0005]]).repeat(25, 1)


def test_the_figures_are_those_of_the_logits() -> None:
    other = LOGITS.clone()
    other[5] = torch.tensor([0.0, 7.0004, 7.0])  # another class, within the tolerance: the two are almost equal
    other[70, 1] -= 0.0009
    result = compare(reference_of(LOGITS), lookup(other), "the test")
    assert result.max_logit_difference == pytest.approx(0.0009, rel=1e-2)
    assert result.tolerance == pytest.approx(1e-4 * 10)
    assert (result.images, result.same_class) == (75, 74)
    assert (result.source, result.runtime) == ("images of the test", "the test")


@pytest.mark.parametrize("row", [0, 40, 74])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_difference_above_the_tolerance_is_refused(dtype: torch.dtype, row: int) -> None:
    allowed = TOLERANCE[dtype] * 8
    logits = torch.zeros(75, 2)
    logits[:, 0] = 8  # exact in every type
    compare(reference_of(logits), lookup(logits.to(dtype)), "")
    for factor, is_refused in ((0.5, False), (2, True)):
        other = logits.clone()
        other[row, 1] = factor * allowed
        if is_refused:
            with pytest.raises(InputError, match=r"does not agree with the run: .* 75 of 75 images; nothing was"):
                compare(reference_of(logits), lookup(other.to(dtype)), "")
        else:
            compare(reference_of(logits), lookup(other.to(dtype)), "")


def test_lower_precision_allows_more() -> None:
    assert TOLERANCE[torch.float32] < TOLERANCE[torch.float16] < TOLERANCE[torch.bfloat16]
    assert all(tolerance > torch.finfo(dtype).eps for dtype, tolerance in TOLERANCE.items())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (LOGITS.roll(1, 1), "the class is the same for 0 of 75"),
        (torch.where(torch.arange(75)[:, None] == 74, torch.nan, LOGITS), "difference of logits is nan"),
        (LOGITS[:, :2], r"for 1 images it returns \[1, 2\] of torch.float32, not \[1, 3\]"),
        (LOGITS.long(), r"it returns \[1, 3\] of torch.int64"),
    ],
    ids=["other classes", "not a number", "fewer classes", "integers"],
)
def test_wrong_logits_are_refused(wrong: Tensor, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        compare(reference_of(LOGITS), lookup(wrong), "")


@pytest.mark.parametrize(("count", "sizes"), [(1, [1, 2, 3]), (2, [1, 2, 3]), (3, [1, 2, 3]), (75, [1, 2, 64, 11])])
def test_batches_of_one_two_and_more_cover_all_images(count: int, sizes: list[int]) -> None:
    seen = []

    def predict(images: Tensor) -> Tensor:
        seen.append(images[:, 0, 0, 0].tolist())
        return lookup(LOGITS)(images)

    result = compare(reference_of(LOGITS[:count]), predict, "")
    assert [len(batch) for batch in seen] == sizes
    assert result.batch_sizes == tuple(sizes)
    assert {image for batch in seen for image in batch} == set(range(count))


def test_a_network_that_ignores_the_batch_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"for 2 images it returns \[1, 3\]"):
        compare(reference_of(LOGITS), lambda images: lookup(LOGITS)(images[:1]), "")


def test_a_network_that_fails_on_a_batch_is_refused() -> None:
    def predict(images: Tensor) -> Tensor:
        if len(images) == 2:
            raise RuntimeError("expected 1,\n got 2")
        return lookup(LOGITS)(images)

    with pytest.raises(InputError, match=r"the run: it fails on a batch of 2: expected 1, got 2; nothing was written"):
        compare(reference_of(LOGITS), predict, "")


def serialize(metadata: Mapping[str, Any]) -> bytes:
    return json.dumps(metadata).encode()


def test_the_figures_are_written_into_the_file(tmp_path: Path) -> None:
    result = write_checked_file(
        tmp_path / "a", serialize, lambda content: lookup(LOGITS), "r", reference_of(LOGITS), {"name": "x"}
    )
    check = json.loads((tmp_path / "a").read_bytes())
    assert check["name"] == "x"
    assert check["check"] == {**vars(result), "batch_sizes": list(result.batch_sizes)}
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_a_refused_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing was written"):
        write_checked_file(tmp_path / "a", serialize, lambda content: lookup(-LOGITS), "", reference_of(LOGITS), {})
    assert list(tmp_path.iterdir()) == []


def test_the_file_with_the_figures_is_checked_too(tmp_path: Path) -> None:
    def load(content: bytes) -> Callable[[Tensor], Tensor]:
        return lookup(LOGITS + 1 if b"check" in content else LOGITS)

    with pytest.raises(InputError, match="nothing was written"):
        write_checked_file(tmp_path / "a", serialize, load, "", reference_of(LOGITS), {})
    assert list(tmp_path.iterdir()) == []
