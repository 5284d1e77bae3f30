"""What a person sees while training: a bar per run with speed and losses, and a line per evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from kdaug.training.evaluation import Scores


def say(console: Console, text: str) -> None:
    """Prints one line as it is: not coloured, not wrapped, and nothing in it (a path, say) taken for markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


@dataclass
class RunProgress:
    """The bar of one run; `images_per_step` turns steps into images per second."""

    bar: Progress
    task: TaskID
    images_per_step: int

    def step(self, done: int, losses: dict[str, float]) -> None:
        """Moves the bar to `done` steps and shows the latest losses."""
        self.bar.update(self.task, completed=done, figures=_in_words(losses))
        speed = self.bar.tasks[self.task].speed
        if speed:
            self.bar.update(self.task, speed=f"{speed * self.images_per_step:,.0f} images/s")

    def evaluated(self, epoch: int, epochs: int, losses: dict[str, float], scores: Scores) -> None:
        """Prints the line of an evaluation after `epoch` (from 0)."""
        say(
            self.bar.console,
            f"  epoch {epoch + 1:>3}/{epochs}  {_in_words(losses)}  "
            f"error {scores.top1_error:.2f} %  (top-5 {scores.top5_error:.2f} %)",
        )


@contextmanager
def show_progress(console: Console, title: str, steps: int, done: int, images_per_step: int) -> Iterator[RunProgress]:
    """A live bar on `console` from `done` to `steps`; on anything but a terminal only the printed lines appear."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=steps, completed=done, speed="", figures="")
        yield RunProgress(bar, task, images_per_step)


def _in_words(losses: dict[str, float]) -> str:
    names = {"loss": "loss", "cross_entropy": "ce", "divergence": "kd"}
    return "  ".join(f"{names[name]} {value:.3f}" for name, value in losses.items() if name in names)
