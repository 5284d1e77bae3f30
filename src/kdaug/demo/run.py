"""The demonstration: a teacher, then the same student without and with it, and a page that shows what happened."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from kdaug.config import Recipe, Teacher
from kdaug.demo.page import write_page
from kdaug.supervision import load_teacher
from kdaug.training import TrainResult, train
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve, teacher_run_recipe


@dataclass(frozen=True)
class DemoResult:
    """The three finished runs and the page about them."""

    teacher: TrainResult
    label_only: TrainResult
    with_teacher: TrainResult
    page: Path

    @property
    def gain(self) -> float:
        """Points of error that the teacher saves."""
        return self.label_only.top1_error - self.with_teacher.top1_error


def run_demo(recipe: Recipe, out: Path, console: Console) -> DemoResult:
    """Trains `recipe`'s teacher and its student without and with it in folder `out`, prints a table, writes index.html.

    What is finished in `out` already is not done again; what was interrupted is continued.
    """
    taught = _in(recipe, out / "with-teacher")
    untaught = replace(_in(recipe, out / "label-only"), teacher=Teacher())
    console.rule("1 of 3: the teacher learns from plain images")
    teacher = train(teacher_run_recipe(resolve(taught)), console)
    console.rule("2 of 3: the student under strong augmentation, labels only")
    label_only = train(untaught, console)
    console.rule("3 of 3: the same student, same views, with the teacher")
    with_teacher = train(taught, console)

    result = DemoResult(teacher, label_only, with_teacher, out / "index.html")
    context = build_context(resolve(taught), console)
    network = load_teacher(recipe.teacher, f"run:{teacher.directory}", context.dataset, recipe.student.name)
    write_page(result.page, context, network.to(context.device), teacher, label_only, with_teacher)
    console.print(_table(result))
    return result


def _in(recipe: Recipe, directory: Path) -> Recipe:
    return replace(recipe, run=replace(recipe.run, dir=str(directory), resume=True))


def _table(result: DemoResult) -> Table:
    table = Table(title="Error on images not trained on")
    table.add_column("student under strong augmentation")
    table.add_column("error", justify="right")
    table.add_row("labels only", f"{result.label_only.top1_error:.2f} %")
    table.add_row("with the teacher", f"{result.with_teacher.top1_error:.2f} %")
    table.add_row("gain", f"{result.gain:+.2f} points", style="bold")
    table.caption = f"the teacher itself, trained on plain images: {result.teacher.top1_error:.2f} %"
    return table
