"""Mixtures: shares follow their Beta distribution, boxes their areas; bytes are the weighted mean; all is keyed."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdaug.rng import permutation
from kdaug.views.mixing import MixPlan, beta_quantile, mix, partners, plan_mixing

SIZE = (24, 40)
MANY = np.arange(20_000)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 8.0, 100.0])
def test_quantiles_are_those_of_the_beta_distribution(alpha: float) -> None:
    probability = np.array([1e-6, 0.01, 0.1, 0.3, 0.5, 0.8, 0.99, 1 - 1e-6])
    for p, x in zip(probability, beta_quantile(probability, alpha), strict=True):
        below, above = (
            float(mpmath.betainc(alpha, alpha, 0, min(max(x + d, 0), 1), regularized=True)) for d in (-1 / 512, 1 / 512)
        )
        assert below - 1e-9 <= p <= above + 1e-9


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_blends_have_shares_from_the_beta_distribution_in_256ths(alpha: float) -> None:
    plan = plan_mixing(3, 1, MANY, SIZE, alpha, 0)
    assert not plan.box.any()
    share = plan.own_weight(SIZE)
    assert np.array_equal(share * 256, plan.weight)
    expected = np.random.default_rng(0).beta(alpha, alpha, len(MANY))
    quantiles = np.linspace(0.02, 0.98, 25)
    assert np.abs(np.quantile(share, quantiles) - np.quantile(expected, quantiles)).max() < 0.03


def test_boxes_lie_inside_have_the_images_proportions_and_their_areas_follow_the_share() -> None:
    plan = plan_mixing(3, 1, MANY, (200, 400), 0, 1.0)
    left, top, width, height = plan.box.T
    assert (plan.weight == 256).all()
    assert (np.minimum(left, top) >= 0).all()
    assert (left + width <= 400).all()
    assert (top + height <= 200).all()
    assert np.allclose(plan.own_weight((200, 400)), 1 - width * height / 80_000)
    inside = (left > 0) & (top > 0) & (left + width < 400) & (top + height < 200)
    assert np.abs(width - 2 * height)[inside].max() <= 4
    narrow = plan_mixing(3, 1, MANY, (200, 400), 0, 100.0)
    left, top, width, height = narrow.box.T
    inside = (left > 0) & (top > 0) & (left + width < 400) & (top + height < 200)
    assert inside.mean() == pytest.approx((1 - 0.5**0.5) ** 2, abs=0.02), "centres are anywhere"
    assert (width * height)[inside].mean() / 80_000 == pytest.approx(0.5, abs=0.02), "half the image on average"


def test_of_both_kinds_each_is_drawn_half_the_time() -> None:
    plan = plan_mixing(0, 0, MANY, SIZE, 0.2, 1.0)
    cut = plan.box[:, 2] > 0
    assert 0.44 < cut.mean() < 0.5, "some boxes have no size"
    assert (plan.weight[cut] == 256).all()
    assert plan.weight[~cut].min() == 0


@given(st.integers(0, 2**32), st.integers(0, 99), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_mixture_is_a_function_of_its_key_alone(seed: int, epoch: int, indices: list[int]) -> None:
    whole = plan_mixing(seed, epoch, indices, SIZE, 0.4, 1.0)
    for row, index in enumerate(indices):
        alone = plan_mixing(seed, epoch, [index], SIZE, 0.4, 1.0)
        assert alone.weight[0] == whole.weight[row]
        assert alone.box[0].tolist() == whole.box[row].tolist()


def test_bytes_are_the_weighted_mean_and_the_box_is_the_partners() -> None:
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
def test_a_whole_share_leaves_one_image_as_it_is(weight: int, which: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 1, 5, 5, 1), dtype=np.uint8)
    plan = MixPlan(np.array([weight]), np.zeros((1, 4), np.int64))
    assert np.array_equal(mix(images[0], images[1], plan), images[which])


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 50))
def test_partners_go_round_the_epochs_order(seed: int, epoch: int, count: int) -> None:
    partner, order = partners(seed, epoch, count), permutation(seed, epoch, count).tolist()
    assert sorted(partner.tolist()) == list(range(count))
    for place, row in enumerate(order):
        assert partner[row] == order[(place + 1) % count]
