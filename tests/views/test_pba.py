"""PBA: the schedule over the run, and draws compared to the published procedure."""

from __future__ import annotations

import json
from collections import Counter
from importlib import resources
from typing import Any

import numpy as np
import pytest
from support.chi_square import assert_frequencies

from kdaug import InputError, create_policy
from kdaug.views.ops import NAMES
from kdaug.views.policies import PopulationBasedAugmentation

SIZE = (32, 32)


def tables(file: str) -> dict[str, Any]:
    policies: dict[str, Any] = json.loads((resources.files("kdaug.views") / "tables" / file).read_text())["policies"]
    return policies


def test_the_pba_schedules_are_complete() -> None:
    for name, epochs, segments in [("pba-cifar10", 200, 17), ("pba-svhn", 160, 14)]:
        schedule = tables("pba.json")[name]
        assert schedule["search_epochs"] == epochs == sum(length for length, _ in schedule["segments"])
        assert len(schedule["segments"]) == segments
        assert {len(entries) for _, entries in schedule["segments"]} == {30}


@pytest.mark.parametrize("name", ["pba-cifar10", "pba-svhn"])
@pytest.mark.parametrize("epochs", [1, 3, 90, 160, 200, 270, 1800])
def test_pba_segments_scale_with_the_run(name: str, epochs: int) -> None:
    schedule = tables("pba.json")[name]
    expected: list[int] = []
    for segment, (length, _) in enumerate(schedule["segments"]):
        expected += [segment] * int(length * epochs / schedule["search_epochs"])
    last = len(schedule["segments"]) - 1
    expected += [last] * (epochs - len(expected))
    policy = create_policy(name, epochs=epochs)
    assert isinstance(policy, PopulationBasedAugmentation)
    assert [policy.segment_of(epoch) for epoch in range(epochs)] == expected
    assert policy.segment_of(epochs + 5) == last


def test_pba_draws_as_the_published_procedure() -> None:
    """Counts, ops and pairs of ops, compared to a walk through the shuffled entries with NumPy's generator."""
    ops = json.loads((resources.files("kdaug.views") / "tables" / "pba.json").read_text())["ops"] * 2
    entries = tables("pba.json")["pba-cifar10"]["segments"][-1][1]
    chances = [tenths / 10 for tenths, _ in entries]
    generator, trials = np.random.default_rng(0), 30000
    walked: Counter[tuple[str, ...]] = Counter()
    counts = generator.choice(3, trials, p=[0.2, 0.3, 0.5])
    orders = generator.random((trials, 30)).argsort(axis=1)
    successes = generator.random((trials, 30)) < np.array(chances)[orders]
    for count, order, success in zip(counts, orders, successes, strict=True):
        walked[tuple(ops[entry] for entry in order[success][:count])] += 1
    plan = create_policy("pba-cifar10", epochs=200).plan(0, 199, np.arange(trials), SIZE)
    ours = Counter(tuple(NAMES[code] for code in row if code) for row in plan.op)
    assert_frequencies([sum(n for key, n in ours.items() if len(key) == k) for k in range(3)], [0.2, 0.3, 0.5])
    frequent = [key for key, n in walked.items() if n >= 60]
    counts_ours, counts_walked = np.array([[ours[key], walked[key]] for key in frequent]).T
    z = (counts_ours - counts_walked) / np.sqrt(counts_ours + counts_walked)
    assert np.abs(z).max() < 5
    assert (z**2).mean() < 1.3
    assert set(ours) - set(walked) == {key for key in ours if key not in walked and ours[key] < 40}


def test_pba_starts_without_augmentation() -> None:
    policy = create_policy("pba-cifar10", epochs=200)
    assert not policy.plan(0, 11, np.arange(500), SIZE).op.any()
    assert policy.plan(0, 12, np.arange(500), SIZE).op.any()
    assert not create_policy("pba-cifar10", epochs=400).plan(0, 23, np.arange(500), SIZE).op.any()


def test_pba_needs_the_number_of_epochs() -> None:
    with pytest.raises(
        InputError, match=r"pba-cifar10 is a schedule .*; give it as in create_policy\('pba-cifar10', epochs=200\)"
    ):
        create_policy("pba-cifar10")
    with pytest.raises(InputError, match="epochs is 0, but must be from 1 to 100000"):
        create_policy("pba-svhn", epochs=0)
