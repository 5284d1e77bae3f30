"""PBA: its schedule over the run, and what it draws against the published procedure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
import pytest

from kdaug import InputError, create_policy
from kdaug.views.ops import NAMES
from kdaug.views.policies import PopulationBasedAugmentation

SIZE = (32, 32)
Check = Callable[[Any, Any], None]


def tables(file: str) -> dict[str, Any]:
    policies: dict[str, Any] = json.loads((resources.files("kdaug.views") / "tables" / file).read_text())["policies"]
    return policies


def test_the_pba_schedules_are_whole() -> None:
    for name, epochs, segments in [("pba-cifar10", 200, 17), ("pba-svhn", 160, 14)]:
        schedule = tables("pba.json")[name]
        assert schedule["search_epochs"] == epochs == sum(length for length, _ in schedule["segments"])
        assert len(schedule["segments"]) == segments
        assert {len(entries) for _, entries in schedule["segments"]} == {30}


@pytest.mark.parametrize("name", ["pba-cifar10", "pba-svhn"])
@pytest.mark.parametrize("epochs", [1, 3, 90, 160, 200, 270, 1800])
def test_pba_segments_scale_with_the_run_and_the_last_takes_the_rest(name: str, epochs: int) -> None:
    schedule = tables("pba.json")[name]
    wanted: list[int] = []
    for segment, (length, _) in enumerate(schedule["segments"]):
        wanted += [segment] * int(length * epochs / schedule["search_epochs"])
    last = len(schedule["segments"]) - 1
    wanted += [last] * (epochs - len(wanted))
    policy = create_policy(name, epochs=epochs)
    assert isinstance(policy, PopulationBasedAugmentation)
    assert [policy.segment_of(epoch) for epoch in range(epochs)] == wanted
    assert policy.segment_of(epochs + 5) == last


def test_pba_applies_what_a_walk_through_the_shuffled_entries_applies(assert_frequencies: Check) -> None:
    """The published procedure, done here with NumPy's generator, against ours: counts, ops and pairs of ops."""
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
    seen, expected = np.array([[ours[key], walked[key]] for key in frequent]).T
    z = (seen - expected) / np.sqrt(seen + expected)
    assert np.abs(z).max() < 5
    assert (z**2).mean() < 1.3
    assert set(ours) - set(walked) == {key for key in ours if key not in walked and ours[key] < 40}


def test_pba_starts_without_augmentation_and_its_first_entry_starts_the_second_segment() -> None:
    policy = create_policy("pba-cifar10", epochs=200)
    assert not policy.plan(0, 11, np.arange(500), SIZE).op.any()
    assert policy.plan(0, 12, np.arange(500), SIZE).op.any()
    assert not create_policy("pba-cifar10", epochs=400).plan(0, 23, np.arange(500), SIZE).op.any()


def test_pba_without_the_runs_epochs_is_refused_with_what_to_say() -> None:
    with pytest.raises(
        InputError, match=r"pba-cifar10 follows the epoch; say .* create_policy\('pba-cifar10', epochs=200\)"
    ):
        create_policy("pba-cifar10")
    with pytest.raises(InputError, match="epochs is 0, but must be from 1 to 100000"):
        create_policy("pba-svhn", epochs=0)
