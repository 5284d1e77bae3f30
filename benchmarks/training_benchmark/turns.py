"""Taking turns: in every round each contender takes some steps, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from training_benchmark.work import Work
from views_benchmark.rounds import Spread, spread_of

Step = Callable[[], object]
Opening = Callable[[], AbstractContextManager[Step]]
"""Begins a turn: starts what prepares batches, gives the step, and stops it all again at the end of the turn."""


@dataclass(frozen=True)
class Contender:
    """`make` prepares networks and data once. ImportError from it says that what it needs is not installed.

    cudnn_benchmark: whether cuDNN tries out its algorithms on a GPU, as the contender's own scripts set it.
    """

    name: str
    label: str
    differs: str
    make: Callable[[Work], Opening]
    cudnn_benchmark: bool = False


@dataclass(frozen=True)
class Turn:
    """What one contender does with torch on `threads` threads."""

    name: str
    threads: int
    opened: Opening
    cudnn_benchmark: bool = False


@dataclass(frozen=True)
class Pace:
    """In each of the `rounds` a turn is so many `untimed` steps, until all is in full swing, and then timed `steps`."""

    rounds: int
    untimed: int
    steps: int


def always(step: Step) -> Opening:
    """The opening of a step that needs nothing to be started."""
    return lambda: nullcontext(step)


def take_turns(
    turns: Sequence[Turn], pace: Pace, device: torch.device, progress: Callable[[str], None]
) -> list[Spread]:
    """Milliseconds per step of each of `turns`, round by round; every other round goes through them backwards."""
    taken: list[list[float]] = [[] for _ in turns]
    for number in range(1, pace.rounds + 1):
        progress(f"round {number} of {pace.rounds}")
        in_order = list(zip(turns, taken, strict=True))
        for turn, mine in in_order if number % 2 else reversed(in_order):
            mine.append(_milliseconds_per_step(turn, pace, device))
    return [spread_of(mine) for mine in taken]


def _milliseconds_per_step(turn: Turn, pace: Pace, device: torch.device) -> float:
    torch.set_num_threads(turn.threads)
    torch.backends.cudnn.benchmark = turn.cudnn_benchmark
    with turn.opened() as step:
        for _ in range(pace.untimed):
            step()
        _wait_for(device)
        begin = time.perf_counter()
        for _ in range(pace.steps):
            step()
        _wait_for(device)
        return 1e3 * (time.perf_counter() - begin) / pace.steps


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
