"""What a person sees while training: a bar per run with speed and losses, and a line per evaluation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kdaug.data.loader import Batch
from kdaug.training.evaluation import Scores


def print_line(console: Console, text: str) -> None:
    """Prints one line as it is: not coloured, not wrapped, and nothing in it (a path, say) taken for markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


class RunProgress:
    """The line of one run on a bar: steps done, images per second, the latest losses."""

    def __init__(self, bar: Progress, title: str, steps: int, done: int, images_per_step: int) -> None:
        """From `done` to `steps`; `images_per_step` turns steps into images per second."""
        self.bar, self._images_per_step = bar, images_per_step
        self._since, self._then, self._done = time.monotonic(), done, done
        self._task = bar.add_task(title, total=steps, completed=done, speed="", figures="")

    def step(self, done: int, losses: dict[str, float]) -> None:
        """Moves the bar to `done` steps and shows the latest losses."""
        self._done = done
        self.bar.update(self._task, completed=done, figures=_in_words(losses))
        speed = self.bar.tasks[self._task].speed
        if speed:
            self.bar.update(self._task, speed=f"{speed * self._images_per_step:,.0f} images/s")

    def speed(self) -> float:
        """Images per second learned from since the last evaluation was done; 0 if none."""
        return (self._done - self._then) * self._images_per_step / max(time.monotonic() - self._since, 1e-9)

    def evaluated(self, epoch: int, epochs: int, losses: dict[str, float], scores: Scores, speed: float) -> None:
        """Prints the line of an evaluation after `epoch` (from 0), after `speed` images a second."""
        print_line(
            self.bar.console,
            f"  epoch {epoch + 1:>3}/{epochs}  {_in_words(losses)}  "
            f"error {scores.top1_error:.2f} %  (top-5 {scores.top5_error:.2f} %)  {speed:,.0f} images/s",
        )
        self._since, self._then = time.monotonic(), self._done


def progress_bar(console: Console) -> Progress:
    """A live bar on `console`, to be entered; on anything but a terminal only the printed lines appear."""
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
    """The same batches, with a line on `bar` that counts their `images` until they are through."""
    task = bar.add_task(title, total=images, speed="", figures="")
    for batch in batches:
        yield batch
        bar.advance(task, len(batch.labels))
    bar.remove_task(task)


def _in_words(losses: dict[str, float]) -> str:
    shown = {
        "loss": "loss {:.3f}", "cross_entropy": "ce {:.3f}", "divergence": "kd {:.3f}", "adversarial": "adv {:.3f}",
        "teacher_agreement": "agrees {:.0f} %", "label_trust": "trust {:.0f} %", "learning_rate": "lr {:.2g}",
    }  # fmt: skip
    return "  ".join(shown[name].format(value) for name, value in losses.items() if name in shown)
