"""Magnitude factors: the rule against SciPy, the file, and RandAugment's arguments, which follow the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from kdaug import apply
from kdaug.config import Views
from kdaug.errors import InputError
from kdaug.views.policies import (
    CIFAR_MEAN,
    MagnitudeFactors,
    RandAugment,
    factors_from_entropy,
    pin_factors,
    policy_from_views,
    read_factors,
    write_factors,
)

VALUES = np.array([0.0, 0.5, 1.0, 0.25])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_factors(MagnitudeFactors(VALUES, "these images"), tmp_path / "factors.safetensors")
    return tmp_path / "factors.safetensors"


@given(st.lists(st.floats(0.001, 1), min_size=2, max_size=8))
def test_the_factor_is_one_minus_the_normalized_entropy(weights: list[float]) -> None:
    probs = np.array(weights) / sum(weights)
    expected = 1 - entropy(probs, base=len(weights))
    assert factors_from_entropy(np.array([entropy(probs)]), len(weights)) == pytest.approx([expected], abs=1e-9)


def test_sure_unsure_and_unreadable_images() -> None:
    assert factors_from_entropy(np.array([0.0, np.log(10), np.nan]), 10) == pytest.approx([1, 0, 1])


@pytest.mark.parametrize("space", ["paper-geometric", "tf-efficientnet", "torchvision"])
def test_the_magnitude_of_each_image_is_multiplied_by_its_factor(space: str) -> None:
    """The same draws as without factors, at another magnitude for each image."""
    indices, magnitude = np.array([3, 1, 1, 0, 2]), 8.0
    policy = RandAugment(2, magnitude, space, factors=VALUES).plan(1, 2, indices, (32, 24))
    for row, index in enumerate(indices):
        own = RandAugment(2, magnitude * VALUES[index], space).plan(1, 2, [index], (32, 24))
        np.testing.assert_array_equal(policy.op[row], own.op[0])
        np.testing.assert_allclose(policy.argument[row], own.argument[0], rtol=1e-12)
    assert not (policy.argument[0] == policy.argument[4]).all()


def test_the_file_is_read_as_it_was_written(file: Path) -> None:
    pinned = pin_factors(str(file))
    assert pin_factors(pinned) == pinned
    for source in (str(file), pinned):
        found = read_factors(source)
        np.testing.assert_array_equal(found.values, VALUES)
        assert found.images == "these images"


def test_a_changed_file_is_refused(file: Path) -> None:
    pinned = pin_factors(str(file))
    write_factors(MagnitudeFactors(VALUES / 2, "these images"), file)
    with pytest.raises(InputError, match=r"magnitude factors .* have changed: the digest is #[0-9a-f]{10}, not #"):
        read_factors(pinned)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no safetensors", "cannot be read"),
        (safetensors.numpy.save({"other": VALUES}), "cannot be read"),
        (safetensors.numpy.save({"factor": VALUES}), "cannot be read"),
        (safetensors.numpy.save({"factor": -VALUES}, {"kdaug": '{"images": "x"}'}), "are not numbers of at least 0"),
        (safetensors.numpy.save({"factor": VALUES + np.inf}, {"kdaug": '{"images": "x"}'}), "are not numbers"),
        (safetensors.numpy.save({"factor": VALUES[None]}, {"kdaug": '{"images": "x"}'}), "are not numbers"),
        (safetensors.numpy.save({"factor": VALUES}, {"kdaug": "["}), "cannot be read"),
    ],
)
def test_other_files_are_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=f"{message}.*; write the file with kdaug recommend RECIPE --per-image FILE"):
        read_factors(str(tmp_path / "x"))


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    for call in (read_factors, pin_factors):
        with pytest.raises(InputError, match="cannot be read"):
            call(str(tmp_path / "none"))


def test_only_randaugment_has_factors(file: Path) -> None:
    views = Views("randaugment-n2-m9@paper-geometric", crop="none", flip=False, magnitude_factors=str(file))
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), np.uint8)
    augmented = apply(images, policy_from_views(views, CIFAR_MEAN, False).plan(0, 0, [0, 2], (24, 24)))
    np.testing.assert_array_equal(augmented[0], images[0])  # its factor is 0
    assert (augmented[1] != images[1]).any()
    with pytest.raises(InputError, match=r"views\.magnitude_factors is for RandAugment, but views\.policy is auto"):
        policy_from_views(Views("autoaugment-cifar10", magnitude_factors=str(file)), CIFAR_MEAN, False)
