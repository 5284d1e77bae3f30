"""Turns: in every round each contender runs some training steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch

from harness.rounds import Spread, run_rounds

Step = Callable[[], object]
OpenStep = Callable[[], AbstractContextManager[Step]]
"""Opens a turn: entering starts what prepares batches and returns the step; leaving stops it."""


@dataclass(frozen=True)
class Turn:
    """The steps of one contender with torch on `threads` threads. steps: timed ones; None: as the pace says."""

    name: str
    threads: int
    open_step: OpenStep
    steps: int | None = None


@dataclass(frozen=True)
class Pace:
    """The number of rounds, and of warm-up steps (untimed) and timed steps in each turn."""

    rounds: int
    untimed: int
    steps: int


def always(step: Step) -> OpenStep:
    """For a step that needs no start or stop."""
    return lambda: nullcontext(step)


def run_turns(turns: Sequence[Turn], pace: Pace, device: torch.device) -> dict[tuple[str, int], Spread]:
    """Milliseconds per step, by name and number of threads."""
    spreads = run_rounds([partial(_time_per_step, turn, pace, device) for turn in turns], pace.rounds)
    return {(turn.name, turn.threads): spread for turn, spread in zip(turns, spreads, strict=True)}


def _time_per_step(turn: Turn, pace: Pace, device: torch.device) -> float:
    torch.set_num_threads(turn.threads)
    with turn.open_step() as step:
        for _ in range(pace.untimed):
            step()
        _synchronize(device)
        start = time.perf_counter()
        steps = turn.steps or pace.steps
        for _ in range(steps):
            step()
        _synchronize(device)
        return 1e3 * (time.perf_counter() - start) / steps


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
