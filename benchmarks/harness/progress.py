"""Progress of a benchmark script, on stderr."""

from __future__ import annotations

import sys
import time

_START = time.perf_counter()


def print_progress(text: str) -> None:
    """Prints one line with the seconds since the script started."""
    print(f"[{time.perf_counter() - _START:4.0f} s] {text}", file=sys.stderr, flush=True)
