"""Ctrl-C and SIGTERM: the first asks the loop to stop at the next step, a second Ctrl-C stops at once."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """Training was asked to stop and has left a resumable run in `directory`."""

    def __init__(self, directory: Path) -> None:
        recipe = shlex.quote(str(directory / "recipe.yaml"))
        super().__init__(f"interrupted; continue with: kdaug train {recipe} --run.resume")
        self.directory = directory


@contextmanager
def listen() -> Iterator[threading.Event]:
    """An event that is set once a stop is asked for. Outside the main thread nothing is listened to."""
    asked = threading.Event()

    def note(signum: int, frame: FrameType | None) -> None:
        if asked.is_set() and signum == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
