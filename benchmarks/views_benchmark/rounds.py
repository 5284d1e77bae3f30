"""Taking turns: every round runs every task once for a while, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """What was measured round by round, and what it comes to. The unit is the owner's."""

    median: float
    lowest: float
    highest: float
    rounds: list[float]


@dataclass(frozen=True)
class Task:
    """`run()` does its work to `images` images once."""

    run: Callable[[], object]
    images: int


def spread_of(rounds: Sequence[float]) -> Spread:
    """The rounds and their median, to four significant digits or so: files stay readable."""
    kept = [float(f"{value:.5g}") for value in rounds]
    return Spread(float(f"{statistics.median(kept):.5g}"), min(kept), max(kept), kept)


def take_turns(tasks: Sequence[Task], rounds: int, slot: float, progress: Callable[[int], None]) -> list[Spread]:
    """Microseconds per image of every task.

    Each task first runs once unmeasured, to compile and to fill caches. Then it has about `slot` seconds in each of
    the rounds, but at least one run. `progress` is told the number of each round, from 1.
    """
    for task in tasks:
        task.run()
    taken: list[list[float]] = [[] for _ in tasks]
    for number in range(1, rounds + 1):
        progress(number)
        for task, mine in zip(tasks, taken, strict=True):
            mine.append(_microseconds_per_image(task, slot))
    return [spread_of(mine) for mine in taken]


def _microseconds_per_image(task: Task, slot: float) -> float:
    runs, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < slot or not runs:
        task.run()
        runs += 1
        elapsed = time.perf_counter() - start
    return elapsed / (runs * task.images) * 1e6
