"""Mixup and CutMix: distributions of weights and boxes, pixels of the mixtures, partners."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdaug.rng import permutation
from kdaug.views.mixing import MixPlan, beta_quantile, mix, partners, plan_mixing

SIZE = (24, 40)
INDICES = np.arange(20_000)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 8.0, 100.0])
def test_quantiles_are_those_of_the_beta_distribution(alpha: float) -> None:
    probability = np.array([1e-6, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99, 1 - 1e-6])
    for p, x in zip(probability, beta_quantile(probability, alpha), strict=True):
        below, above = (
            float(mpmath.betainc(alpha, alpha, 0, min(max(x + d, 0), 1), regularized=True)) for d in (-1 / 512, 1 / 512)
        )
        assert below - 1e-9 <= p <= above + 1e-9


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_weights_follow_the_beta_distribution(alpha: float) -> None:
    plan = plan_mixing(3, 1, INDICES, SIZE, alpha, 0)
    assert not plan.box.any()
    weights = plan.own_weight(SIZE)
    assert np.array_equal(weights * 256, plan.weight)
    expected = np.random.default_rng(0).beta(alpha, alpha, len(INDICES))
    quantiles = np.linspace(0.02, 0.98, 25)
    assert np.abs(np.quantile(weights, quantiles) - np.quantile(expected, quantiles)).max() < 0.03


def test_cutmix_boxes_are_inside_with_the_drawn_area() -> None:
    plan = plan_mixing(3, 1, INDICES, (200, 400), 0, 1.0)
    left, top, width, height = plan.box.T
    assert (plan.weight == 256).all()
    assert (np.minimum(left, top) >= 0).all()
    assert (left + width <= 400).all()
    assert (top + height <= 200).all()
    assert np.allclose(plan.own_weight((200, 400)), 1 - width * height / 80_000)
    inside = (left > 0) & (top > 0) & (left + width < 400) & (top + height < 200)
    assert np.abs(width - 2 * height)[inside].max() <= 4
    narrow = plan_mixing(3, 1, INDICES, (200, 400), 0, 100.0)
    left, top, width, height = narrow.box.T
    inside = (left > 0) & (top > 0) & (left + width < 400) & (top + height < 200)
    assert inside.mean() == pytest.approx((1 - 0.5**0.5) ** 2, abs=0.02), "uniform centers"
    assert (width * height)[inside].mean() / 80_000 == pytest.approx(0.5, abs=0.02), "half the image on average"


def test_mixup_and_cutmix_are_drawn_equally_often() -> None:
    plan = plan_mixing(0, 0, INDICES, SIZE, 0.2, 1.0)
    is_cutmix = plan.box[:, 2] > 0
    assert 0.44 < is_cutmix.mean() < 0.5, "some boxes are empty"
    assert (plan.weight[is_cutmix] == 256).all()
    assert plan.weight[~is_cutmix].min() == 0


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(0, 99), st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_a_mixture_depends_on_seed_epoch_and_index_only(seed: int, epoch: int, indices: list[int]) -> None:
    batch = plan_mixing(seed, epoch, indices, SIZE, 0.4, 1.0)
    for row, index in enumerate(indices):
        single = plan_mixing(seed, epoch, [index], SIZE, 0.4, 1.0)
        assert single.weight[0] == batch.weight[row]
        assert single.box[0].tolist() == batch.box[row].tolist()


def test_pixels_are_the_weighted_mean_or_the_partners() -> None:
    rng = np.random.default_rng(0)
    own, partner = rng.integers(0, 256, (2, 300, *SIZE, 3), dtype=np.uint8)
    plan = plan_mixing(5, 0, np.arange(300), SIZE, 0.5, 1.0)
    mixed = mix(own, partner, plan)
    assert mixed.dtype == np.uint8
    for row in range(300):
        expected = (own[row] * plan.weight[row] / 256 + partner[row] * (1 - plan.weight[row] / 256) + 0.5).astype(
            np.uint8
        )
        left, top, width, height = plan.box[row]
        expected[top : top + height, left : left + width] = partner[row, top : top + height, left : left + width]
        assert np.array_equal(mixed[row], expected)


@pytest.mark.parametrize(("weight", "which"), [(256, 0), (0, 1)])
def test_weight_256_or_0_copies_one_image(weight: int, which: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 1, 5, 5, 1), dtype=np.uint8)
    plan = MixPlan(np.array([weight]), np.zeros((1, 4), np.int64))
    assert np.array_equal(mix(images[0], images[1], plan), images[which])


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 50))
def test_the_partner_is_the_next_image_of_the_epoch(seed: int, epoch: int, count: int) -> None:
    partner, order = partners(seed, epoch, count), permutation(seed, epoch, count).tolist()
    assert sorted(partner.tolist()) == list(range(count))
    for position, row in enumerate(order):
        assert partner[row] == order[(position + 1) % count]
