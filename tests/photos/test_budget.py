"""Epochs within a limit of time, against a search through all numbers of epochs."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdaug.errors import InputError
from kdaug.photos.budget import NetworkSeconds, RunSeconds, epochs_within, estimate

SECONDS = st.floats(0.001, 50)
NETWORKS = st.builds(NetworkSeconds, SECONDS, SECONDS, SECONDS)
RUNS = st.builds(RunSeconds, st.integers(1, 50), NETWORKS, st.none() | NETWORKS, st.floats(0, 100))
RUN = RunSeconds(10, NetworkSeconds(2, 0.5, 3), NetworkSeconds(1, 0.25, 3), 5)


def test_the_parts_of_an_estimate() -> None:
    parts = estimate(RUN, 30, 8, clean_epochs=2)
    assert parts.student == 2 + 32 * 10 * 0.5 + 20 * 3
    assert parts.teacher == 1 + 8 * 10 * 0.25 + 8 * 3
    assert parts.total == parts.student + parts.teacher + parts.other
    assert 5 <= parts.other <= 20
    assert estimate(replace(RUN, teacher=None), 30, 8).teacher == 0


@given(RUNS, st.floats(0.1, 500), st.floats(0, 100), st.none() | st.integers(1, 20), st.integers(0, 3))
def test_as_many_epochs_as_fit(
    run: RunSeconds, minutes: float, elapsed: float, teacher_epochs: int | None, clean_epochs: int
) -> None:
    def fits(epochs: int) -> bool:
        parts = estimate(run, epochs, teacher_epochs or epochs, clean_epochs)
        return elapsed + parts.total <= 0.9 * 60 * minutes + 1e-9

    fitting = [epochs for epochs in range(1, 101) if fits(epochs)]
    if fitting:
        assert epochs_within(run, minutes, elapsed, 100, teacher_epochs, clean_epochs) == max(fitting)
    else:
        with pytest.raises(InputError, match="is too short"):
            epochs_within(run, minutes, elapsed, 100, teacher_epochs, clean_epochs)


@given(RUNS, st.floats(0, 100))
def test_the_minutes_that_an_error_names_are_enough(run: RunSeconds, elapsed: float) -> None:
    with pytest.raises(InputError) as error:
        epochs_within(run, 1e-6, elapsed, 100)
    named = re.search(r"takes ([\d.]+) minutes here", error.value.problem)
    assert named is not None
    assert epochs_within(run, float(named[1]), elapsed, 100) >= 1
    with pytest.raises(InputError):
        epochs_within(run, float(named[1]) - 0.2, elapsed, 100)
