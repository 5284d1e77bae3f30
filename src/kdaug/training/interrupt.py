"""Ctrl-C, SIGTERM and SIGHUP: training stops after the current step, with a checkpoint."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """An event that Ctrl-C, SIGTERM or SIGHUP sets. Ctrl-C after any of them raises KeyboardInterrupt at once.

    SIGHUP says that the terminal was closed. If it is ignored, as under nohup, it stays ignored.
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
        _replace_closed_terminal()
        if is_first and is_rank0:
            newline = b"\n" if os.isatty(2) else b""  # a terminal shows ^C
            with suppress(OSError):
                os.write(2, newline + _NOTICE)  # not print: the signal may have interrupted one

    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)
    previous = {signum: signal.signal(signum, handle) for signum in signals}
    _shared = stop
    try:
        yield stop
    finally:
        _shared = None
        for signum, handler in previous.items():
            signal.signal(signum, handler)


def _replace_closed_terminal() -> None:
    """Lets stdout and stderr write to nothing if they were a terminal that was closed; else each write is an error."""
    for descriptor in (1, 2):
        try:
            termios.tcgetattr(descriptor)
        except termios.error as error:
            if error.args[0] == errno.EIO:
                nothing = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nothing, descriptor)
                os.close(nothing)
