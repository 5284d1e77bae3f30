"""Log lines on the console and progress bars."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdaug.data.loader import Batch
from kdaug.training.evaluation import Scores

_logger = logging.getLogger(__name__)


class ConsoleHandler(logging.Handler):
    """Prints each log record as one plain line: no colour, no wrapping, no markup (a path may contain brackets)."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self._console.print(prefix + record.getMessage(), markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def console_logging(console: Console | None) -> Iterator[None]:
    """Prints what kdaug logs at INFO and above to `console`.

    With None: to stdout, but only if the program has not configured logging itself (no handler on the logger "kdaug" or
    on one of its parents). So a script sees its progress, and a program that embeds kdaug decides with
    `logging.getLogger("kdaug")`.
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


class RunProgress:
    """The line of one run in a progress bar: steps done, images per second, the latest losses."""

    def __init__(self, bar: Progress, title: str, steps: int, done: int, images_per_step: int) -> None:
        """From `done` to `steps`; `images_per_step` turns steps into images per second."""
        self.bar, self._images_per_step = bar, images_per_step
        self._measured_from, self._first_step, self._done = time.monotonic(), done, done
        self._task = bar.add_task(title, total=steps, completed=done, speed="", figures="")

    def step(self, done: int, losses: dict[str, float]) -> None:
        """Moves the bar to `done` steps and shows the latest losses."""
        self._done = done
        self.bar.update(self._task, completed=done, figures=_format_losses(losses))
        speed = self.bar.tasks[self._task].speed
        if speed:
            self.bar.update(self._task, speed=f"{speed * self._images_per_step:,.0f} images/s")

    def speed(self) -> float:
        """Training images per second since the last evaluation; 0 if none."""
        steps, seconds = self._done - self._first_step, time.monotonic() - self._measured_from
        return steps * self._images_per_step / max(seconds, 1e-9)

    def log_evaluation(self, epoch: int, epochs: int, losses: dict[str, float], scores: Scores, speed: float) -> None:
        """Logs the scores after `epoch` (from 0) of `epochs`, trained at `speed` images per second."""
        _logger.info(
            f"  epoch {epoch + 1:>3}/{epochs}  {_format_losses(losses)}  "
            f"error {scores.top1_error:.2f} %  (top-5 {scores.top5_error:.2f} %)  {speed:,.0f} images/s"
        )
        self._measured_from, self._first_step = time.monotonic(), self._done


def progress_bar(console: Console) -> Progress:
    """A live progress bar on `console`, to be entered as a context. Nothing is drawn unless it is a terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def track(bar: Progress, title: str, batches: Iterable[Batch], images: int) -> Iterator[Batch]:
    """Yields `batches` and counts their `images` on a line of `bar`, which is removed at the end."""
    task = bar.add_task(title, total=images, speed="", figures="")
    for batch in batches:
        yield batch
        bar.advance(task, len(batch.labels))
    bar.remove_task(task)


def _format_losses(losses: dict[str, float]) -> str:
    formats = {
        "loss": "loss {:.3f}", "cross_entropy": "ce {:.3f}", "divergence": "kd {:.3f}", "adversarial": "adv {:.3f}",
        "teacher_agreement": "agreement {:.0f} %", "label_trust": "trust {:.0f} %", "learning_rate": "lr {:.2g}",
    }  # fmt: skip
    return "  ".join(formats[name].format(value) for name, value in losses.items() if name in formats)
