"""What commands say: complaints, of which one process speaks for all that torchrun started, and reports."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path


def rank() -> int:
    """Which of the processes that torchrun started this one is; 0 without torchrun."""
    return int(os.environ.get("RANK", 0))


def print_error(what: str) -> None:
    """One line on stderr. The first process speaks, the others only if it does not.

    For what is wrong is mostly wrong for all, and torchrun ends the others as soon as the first has failed.
    """
    if rank() > 0:
        time.sleep(2)
        what = f"process {rank()}: {what}"
    print(f"kdaug: {what}", file=sys.stderr, flush=True)


def print_report(table: str, left_out: Iterable[str], out: Path) -> None:
    """What a command that has written a report to `out` says of it."""
    print(table, end="")
    for why in left_out:
        print_error(f"left out: {why}")
    print(f"everything is in {out}: open {out}/index.html")


def percent(value: float | None) -> str:
    """An error for a table; nothing if there is none yet."""
    return "" if value is None else f"{value:.2f} %"
