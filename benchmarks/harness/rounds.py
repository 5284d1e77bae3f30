"""Measures in rounds: each round measures every contender once, so that other load on the machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.progress import print_progress


@dataclass(frozen=True)
class Spread:
    """The values of all rounds, with their median, minimum and maximum. The field that contains it names the unit."""

    median: float
    lowest: float
    highest: float
    rounds: list[float]


@dataclass(frozen=True)
class ImageTask:
    """`run()` processes `images` images once."""

    run: Callable[[], object]
    images: int


def spread_of(rounds: Sequence[float]) -> Spread:
    """The rounds and their median, rounded to five significant digits to keep the files readable."""
    rounded = [round_to(value, 5) for value in rounds]
    return Spread(round_to(statistics.median(rounded), 5), min(rounded), max(rounded), rounded)


def divide_rounds(numerator: Spread, denominator: Spread) -> Spread:
    """The ratios round by round: both values of a ratio were measured close together in time."""
    return spread_of([a / b for a, b in zip(numerator.rounds, denominator.rounds, strict=True)])


def round_to(value: float, digits: int) -> float:
    """`value` rounded to so many significant digits."""
    return float(f"{value:.{digits}g}")


def run_rounds(measures: Sequence[Callable[[], float]], rounds: int, title: str = "") -> list[Spread]:
    """The values of each measure. Every second round runs the measures in reverse order."""
    values: list[list[float]] = [[] for _ in measures]
    for number in range(1, rounds + 1):
        print_progress(f"{title}round {number} of {rounds}")
        pairs = list(zip(measures, values, strict=True))
        for measure, collected in pairs if number % 2 else reversed(pairs):
            collected.append(measure())
    return [spread_of(collected) for collected in values]


def time_images(tasks: Sequence[ImageTask], rounds: int, seconds: float, title: str) -> list[Spread]:
    """Microseconds per image of each task.

    Each task runs once untimed, which compiles kernels and fills caches. Then it runs for about `seconds` in each
    round, at least once.
    """
    for task in tasks:
        task.run()
    return run_rounds([lambda task=task: _time_per_image(task, seconds) for task in tasks], rounds, title)  # type: ignore[misc]


def _time_per_image(task: ImageTask, seconds: float) -> float:
    runs, elapsed, start = 0, 0.0, time.perf_counter()
    while elapsed < seconds or not runs:
        task.run()
        runs += 1
        elapsed = time.perf_counter() - start
    return elapsed / (runs * task.images) * 1e6
