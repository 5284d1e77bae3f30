"""Ctrl-C and SIGTERM: the first asks the loop to stop at the next step, a second Ctrl-C does what it did before."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_FIRST = b"kdaug: stopping after this step, with a checkpoint (Ctrl-C again: at once, without)\n"


class Interrupted(Exception):
    """Training was asked to stop, or had to, and has left a resumable run in `directory`."""

    def __init__(self, directory: Path, why: str = "interrupted") -> None:
        recipe = shlex.quote(str(directory / "recipe.yaml"))
        program = "kdaug" if "RANK" not in os.environ else "torchrun (as before) -m kdaug"
        super().__init__(f"{why}; continue with: {program} train {recipe} --run.resume")
        self.directory, self.why = directory, why


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that is set once a stop is asked for. Outside the main thread nothing is listened to."""
    asked, owner = threading.Event(), os.getpid()

    def note(signum: int, crop: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker forked a moment ago
            return
        if asked.is_set() and signum == signal.SIGINT:
            signal.signal(signum, before[signal.SIGINT])
            signal.raise_signal(signum)
        already, speaks = asked.is_set(), os.environ.get("RANK", "0") == "0"
        asked.set()
        if already or not speaks:
            return
        after_the_caret = b"\n" if os.isatty(2) else b""  # a terminal shows ^C
        os.write(2, after_the_caret + _FIRST)  # not print: the signal may have come in the middle of one

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
