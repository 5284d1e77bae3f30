"""The rules that choose settings, against the published values that they are taken from."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.recipes import with_settings

from kdaug.config import with_settings as with_checked_settings
from kdaug.photos.rules import (
    CHOSEN,
    Facts,
    epochs_by_rule,
    most_epochs,
    optimizer_settings,
    schedule_settings,
    size_settings,
    smaller_side,
)
from kdaug.recipes import named_recipe

PHOTOS = named_recipe("photos")
FACTS = Facts(images=1_000, on_gpu=False, processes=1, fine_tunes=True, native_side=224, is_fixed_side=False)


@pytest.mark.parametrize(
    ("optimizer", "batch", "rate", "decay"),
    [
        ("adamw", 4096, 4e-3, 0.05),  # ConvNeXt
        ("sgd", 256, 0.1, 1e-4),  # torchvision's references
        ("rmsprop-tf", 4096, 0.256, 1e-5),  # EfficientNet
        ("adamw", 64, 5e-4, 0.05),
        ("sgd", 64, 0.025, 1e-4),
    ],
)
def test_from_scratch_rates_are_the_published_ones(optimizer: str, batch: int, rate: float, decay: float) -> None:
    settings = {"optimization.optimizer": optimizer, "optimization.global_batch": batch}
    chosen = optimizer_settings(with_settings(PHOTOS, settings), replace(FACTS, fine_tunes=False))
    assert chosen["optimization.learning_rate"] == pytest.approx(rate, rel=0.03)
    assert chosen["optimization.weight_decay"] == decay


@pytest.mark.parametrize(
    ("optimizer", "batch", "rate"),
    [("sgd", 256, 0.01), ("adamw", 256, 5e-4), ("adamw", 16, 1.25e-4), ("rmsprop-tf", 256, 1.6e-3)],
)
def test_fine_tuning_rates(optimizer: str, batch: int, rate: float) -> None:
    settings = {"optimization.optimizer": optimizer, "optimization.global_batch": batch}
    chosen = optimizer_settings(with_settings(PHOTOS, settings), FACTS)
    assert chosen["optimization.learning_rate"] == pytest.approx(rate, rel=0.05)


@pytest.mark.parametrize(
    ("images", "fine_tunes", "on_gpu", "epochs"),
    [
        (20_000, True, True, 13),  # BiT: 500 steps of 512 images
        (1_000, True, True, 100),
        (1_000_000, True, True, 10),
        (4_000, True, False, 16),
        (100, True, False, 30),
        (100_000, True, False, 5),
        (1_281_167, False, True, 100),  # ResNet strikes back A3
        (1_000, False, True, 300),
        (5_000, False, False, 51),
        (64, False, False, 100),
    ],
)
def test_epochs(images: int, fine_tunes: bool, on_gpu: bool, epochs: int) -> None:
    facts = replace(FACTS, images=images, fine_tunes=fine_tunes, on_gpu=on_gpu)
    assert epochs_by_rule(facts) == epochs
    assert most_epochs(facts) >= epochs
    assert most_epochs(facts) == epochs_by_rule(replace(facts, on_gpu=True))


@pytest.mark.parametrize(
    ("native", "is_fixed", "on_gpu", "side"),
    [
        (224, False, False, 160), (224, False, True, 224), (384, True, False, 384), (32, False, False, 32),
        (None, False, True, 224), (None, False, False, 160),
    ],
)  # fmt: skip
def test_image_size(native: int | None, is_fixed: bool, on_gpu: bool, side: int) -> None:
    facts = replace(FACTS, native_side=native, is_fixed_side=is_fixed, on_gpu=on_gpu)
    assert size_settings(facts)["data.image_size"] == side


@pytest.mark.parametrize(
    ("images", "on_gpu", "processes", "batch"),
    [
        (100, False, 1, 8), (200, False, 1, 16), (5_000, False, 1, 32), (5_000, True, 1, 64), (5_000, True, 4, 256),
        (33, False, 1, 8), (5, False, 1, 5), (5_000, False, 3, 63),
    ],
)  # fmt: skip
def test_batch(images: int, on_gpu: bool, processes: int, batch: int) -> None:
    facts = replace(FACTS, images=images, on_gpu=on_gpu, processes=processes)
    assert size_settings(facts)["optimization.global_batch"] == batch


@pytest.mark.parametrize(("epochs", "decay"), [(1, None), (3, None), (4, 0.99), (33, 0.999), (400, 0.9999)])
def test_the_average_reaches_back_a_tenth_of_the_run_at_most(epochs: int, decay: float | None) -> None:
    recipe = with_settings(PHOTOS, {"optimization.global_batch": 3})  # 333 steps per epoch
    assert schedule_settings(recipe, FACTS, epochs)["optimization.ema_decay"] == decay


@pytest.mark.parametrize(("epochs", "every"), [(1, 1), (20, 1), (21, 2), (100, 5)])
def test_about_twenty_evaluations(epochs: int, every: int) -> None:
    assert schedule_settings(PHOTOS, FACTS, epochs)["run.evaluate_every"] == every


def test_a_teacher_that_is_not_trained_gets_no_epochs() -> None:
    recipe = with_settings(PHOTOS, {"teacher.source": "run:x"})
    assert "teacher.epochs" not in schedule_settings(recipe, FACTS, 7)
    assert schedule_settings(PHOTOS, FACTS, 7)["teacher.epochs"] == 7


@given(
    st.builds(
        Facts, st.integers(8, 10**7), st.booleans(), st.integers(1, 8), st.booleans(),
        st.none() | st.integers(1, 512), st.booleans(),
    ),
    st.integers(1, 1000),
    st.none() | st.integers(1, 1000),
)  # fmt: skip
def test_what_is_chosen_is_a_valid_recipe(facts: Facts, epochs: int, teacher_epochs: int | None) -> None:
    recipe = with_settings(PHOTOS, {"teacher.epochs": teacher_epochs})
    chosen = size_settings(facts)
    recipe = with_checked_settings(recipe, chosen, "")
    chosen |= optimizer_settings(recipe, facts)
    recipe = with_checked_settings(recipe, chosen, "")
    chosen |= schedule_settings(recipe, facts, epochs)
    if teacher_epochs is not None:
        chosen.pop("teacher.epochs")
    recipe = with_checked_settings(recipe, chosen, "")
    assert recipe.optimization.warmup_epochs < min(epochs, teacher_epochs or epochs)
    assert recipe.optimization.global_batch % facts.processes == 0
    assert set(chosen) <= set(CHOSEN)


@given(st.integers(32, 640), st.floats(0.001, 0.999))
def test_smaller_images_have_at_most_the_share_of_the_pixels(side: int, share: float) -> None:
    smaller = smaller_side(side, share)
    if smaller is None:
        assert side <= 96
        return
    assert 96 <= smaller < side
    assert smaller % 32 == 0
    assert smaller == 96 or smaller**2 <= share * side**2
    assert smaller + 32 >= side or (smaller + 32) ** 2 > share * side**2, "the largest"
