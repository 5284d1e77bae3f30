"""Ctrl-C and SIGTERM: training stops after the current step, with a checkpoint."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_NOTICE = b"kdaug: stopping after this step, with a checkpoint (Ctrl-C again: stop immediately, without one)\n"
_shared: threading.Event | None = None
"""The event of the outermost `stop_on_signal`."""


class Interrupted(Exception):
    """Training was stopped and can be resumed from `directory`. reason: why, in a few words."""

    def __init__(self, directory: Path, reason: str = "interrupted") -> None:
        run = shlex.quote(str(directory))
        program = "kdaug" if "RANK" not in os.environ else "torchrun <same options> -m kdaug"
        super().__init__(f"{reason}; continue with: {program} train {run} --run.resume")
        self.directory, self.reason = directory, reason


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets. Ctrl-C after either raises KeyboardInterrupt at once.

    Nested calls (a teacher that is trained within a student's run) share one event and one handler, so a signal stops
    them all. Outside the main thread, where Python allows no signal handlers, the event is never set.
    """
    global _shared
    if threading.current_thread() is not threading.main_thread():
        yield threading.Event()
        return
    if _shared is not None:
        yield _shared
        return
    stop, owner = threading.Event(), os.getpid()

    def handle(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker process that was just forked
            return
        if stop.is_set() and signum == signal.SIGINT:
            signal.signal(signum, previous[signal.SIGINT])  # Python's, or the command line's
            signal.raise_signal(signum)
        is_first, is_rank0 = not stop.is_set(), os.environ.get("RANK", "0") == "0"
        stop.set()
        if is_first and is_rank0:
            newline = b"\n" if os.isatty(2) else b""  # a terminal shows ^C
            os.write(2, newline + _NOTICE)  # not print: the signal may have interrupted one

    previous = {signum: signal.signal(signum, handle) for signum in (signal.SIGINT, signal.SIGTERM)}
    _shared = stop
    try:
        yield stop
    finally:
        _shared = None
        for signum, handler in previous.items():
            signal.signal(signum, handler)
