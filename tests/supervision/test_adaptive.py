"""What adapts to a view: the classes that count, trust in its label, whether it is learned, its weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdaug.config import Supervision, WeightSchedule
from kdaug.supervision import divergence_weight
from kdaug.supervision.adaptive import kept_views_mask, label_trust, nucleus_mask

shares = st.floats(0.001, 1)


@given(st.lists(shares, min_size=1, max_size=9), st.floats(0.01, 1), st.integers(1, 9))
def test_a_nucleus_is_the_fewest_best_classes_that_hold_the_mass(counts: list[float], mass: float, k: int) -> None:
    ranked = np.sort(np.array(counts) / sum(counts))[::-1]
    kept = nucleus_mask(torch.tensor(ranked[:k].copy()).log()[None], mass)[0].numpy()
    size = int(kept.sum())
    assert size >= 1
    assert kept[:size].all(), "the best ones"
    assert ranked[: size - 1].sum() < mass + 1e-9, "with one less it is not held"
    assert size == min(k, len(ranked)) or ranked[:size].sum() >= mass - 1e-9, "it is held, or there are no more"


def test_the_best_class_counts_even_if_it_is_all() -> None:
    assert nucleus_mask(torch.tensor([[0.0, -math.inf]]), 1.0).tolist() == [[True, False]]


@given(shares, shares)
def test_a_label_is_trusted_as_far_as_the_view_kept_it(view: float, clean: float) -> None:
    trust = label_trust(
        torch.tensor([view], dtype=torch.float64).log(), torch.tensor([clean], dtype=torch.float64).log()
    )
    assert trust.item() == pytest.approx(min(1, view / clean))


def test_labels_seen_nowhere_are_trusted_and_lost_ones_are_not() -> None:
    view, clean = torch.tensor([-math.inf, -math.inf, -1.0, -900.0]), torch.tensor([-math.inf, -1.0, math.nan, -1.0])
    assert label_trust(view, clean).tolist() == [1, 0, 1, 0]


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=40), st.floats(0, 0.99))
def test_the_least_sure_views_are_dropped(label: list[float], dropped: float) -> None:
    learned = kept_views_mask(torch.tensor(label), dropped).bool().tolist()
    count = learned.count(False)
    assert count == min(round(dropped * len(label)), len(label) - 1)
    left = [value for value, kept in zip(label, learned, strict=True) if kept]
    gone = [value for value, kept in zip(label, learned, strict=True) if not kept]
    assert max(gone, default=-math.inf) <= min(left) + 1e-5


@pytest.mark.parametrize(
    ("schedule", "weights"), [("constant", [3, 3, 3]), ("rising", [0, 1.5, 3]), ("falling", [3, 1.5, 0])]
)
def test_the_weight_follows_its_schedule(schedule: WeightSchedule, weights: list[float]) -> None:
    settings = Supervision(weight=3.0, weight_schedule=schedule)
    for progress, weight in zip((0, 0.5, 1), weights, strict=True):
        assert divergence_weight(settings, progress, torch.tensor([0.2, 0.9])).tolist() == [weight, weight]


def test_the_weight_follows_the_magnitude_planned() -> None:
    settings = Supervision(weight=2.0, weight_by_magnitude=True)
    assert divergence_weight(settings, 0.3, torch.tensor([0.0, 0.25, 1.5])).tolist() == [0, 0.5, 3]
