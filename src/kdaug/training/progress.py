"""Log lines on the console and progress bars."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdaug.data.loader import Batch


class ConsoleHandler(logging.Handler):
    """Prints each log record as one plain line: no color, no wrapping, no markup (a path may contain brackets)."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._console.print(prefix + record.getMessage(), markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def console_logging(console: Console | None) -> Iterator[None]:
    """Prints what kdaug logs at INFO and above to `console`.

    With None: to stdout, but only if the logger "kdaug" and its parents have no handlers. So a script shows progress,
    and a program that embeds kdaug configures `logging.getLogger("kdaug")` itself.
    """
    logger = logging.getLogger("kdaug")
    if console is None and logger.hasHandlers():
        yield
        return
    handler, level = ConsoleHandler(console or Console()), logger.level
    logger.addHandler(handler)
    if level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def progress_bar(console: Console) -> Progress:
    """A live progress bar on `console`, a context manager. Nothing is drawn unless it is a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TextColumn("{task.fields[metrics]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def track(bar: Progress, title: str, batches: Iterable[Batch], images: int) -> Iterator[Batch]:
    """Yields `batches` and counts their `images` on a line of `bar`, which is removed at the end."""
    task = bar.add_task(title, total=images, speed="", metrics="")
    for batch in batches:
        yield batch
        bar.advance(task, len(batch.labels))
    bar.remove_task(task)
