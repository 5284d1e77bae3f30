"""Supervision that adapts to each view: nucleus, label trust, dropped views, divergence weight."""

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

probabilities = st.floats(0.001, 1)


@given(st.lists(probabilities, min_size=1, max_size=9), st.floats(0.01, 1), st.integers(1, 9))
def test_nucleus_is_the_smallest_set_with_the_mass(counts: list[float], mass: float, k: int) -> None:
    ranked = np.sort(np.array(counts) / sum(counts))[::-1]
    kept = nucleus_mask(torch.tensor(ranked[:k].copy()).log()[None], mass)[0].numpy()
    size = int(kept.sum())
    assert size >= 1
    assert kept[:size].all()
    assert ranked[: size - 1].sum() < mass + 1e-9
    assert size == min(k, len(ranked)) or ranked[:size].sum() >= mass - 1e-9


def test_nucleus_has_at_least_one_class() -> None:
    assert nucleus_mask(torch.tensor([[0.0, -math.inf]]), 1.0).tolist() == [[True, False]]


@given(probabilities, probabilities)
def test_label_trust_is_the_capped_probability_ratio(view: float, unaugmented: float) -> None:
    trust = label_trust(
        torch.tensor([view], dtype=torch.float64).log(), torch.tensor([unaugmented], dtype=torch.float64).log()
    )
    assert trust.item() == pytest.approx(min(1, view / unaugmented))


def test_label_trust_of_zero_and_unknown_probabilities() -> None:
    view = torch.tensor([-math.inf, -math.inf, -1.0, -900.0])
    unaugmented = torch.tensor([-math.inf, -1.0, math.nan, -1.0])
    assert label_trust(view, unaugmented).tolist() == [1, 0, 1, 0]


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=40), st.floats(0, 0.99))
def test_views_with_least_probable_labels_are_dropped(label: list[float], dropped: float) -> None:
    mask = kept_views_mask(torch.tensor(label), dropped).bool().tolist()
    assert mask.count(False) == min(round(dropped * len(label)), len(label) - 1)
    kept_labels = [value for value, kept in zip(label, mask, strict=True) if kept]
    dropped_labels = [value for value, kept in zip(label, mask, strict=True) if not kept]
    assert max(dropped_labels, default=-math.inf) <= min(kept_labels) + 1e-5


@pytest.mark.parametrize(
    ("schedule", "weights"), [("constant", [3, 3, 3]), ("rising", [0, 1.5, 3]), ("falling", [3, 1.5, 0])]
)
def test_weight_schedule(schedule: WeightSchedule, weights: list[float]) -> None:
    settings = Supervision(weight=3.0, weight_schedule=schedule)
    for progress, weight in zip((0, 0.5, 1), weights, strict=True):
        assert divergence_weight(settings, progress, torch.tensor([0.2, 0.9])).tolist() == [weight, weight]


def test_weight_by_magnitude() -> None:
    settings = Supervision(weight=2.0, weight_by_magnitude=True)
    assert divergence_weight(settings, 0.3, torch.tensor([0.0, 0.25, 1.5])).tolist() == [0, 0.5, 3]
