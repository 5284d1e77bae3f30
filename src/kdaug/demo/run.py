"""Runs the demonstration: a teacher, the same student without and with it, and a page about the result."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kdaug.config import Recipe, Teacher
from kdaug.demo.page import write_page
from kdaug.demo.result import DemoResult
from kdaug.supervision import load_teacher
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.progress import console_logging
from kdaug.training.resolve import resolve, teacher_run_recipe

_logger = logging.getLogger(__name__)


def run_demo(recipe: Recipe, out: Path, console: Console) -> DemoResult:
    """Trains the teacher of `recipe`, its student without the teacher, and its student with it, in the folder `out`.

    Writes index.html to `out` and logs the errors to `console`. Finished runs are not repeated, interrupted runs are
    resumed.
    """
    with_teacher_recipe = _in_directory(recipe, out / "with-teacher")
    label_only_recipe = replace(_in_directory(recipe, out / "label-only"), teacher=Teacher())
    _log(console, "1 of 3: the teacher, trained without strong augmentation")
    teacher = train(teacher_run_recipe(resolve(with_teacher_recipe)), console)
    _log(console, "2 of 3: the student under strong augmentation, trained with labels only")
    label_only = train(label_only_recipe, console)
    _log(console, "3 of 3: the same student and views, trained with the teacher")
    with_teacher = train(with_teacher_recipe, console)

    result = DemoResult(teacher, label_only, with_teacher, out / "index.html")
    context = build_context(resolve(with_teacher_recipe), console)
    network = load_teacher(recipe.teacher, f"run:{teacher.directory}", context.dataset)
    write_page(result, context, network.to(context.device))
    _log(console, _summary(result))
    return result


def _in_directory(recipe: Recipe, directory: Path) -> Recipe:
    return replace(recipe, run=replace(recipe.run, dir=str(directory), resume=True))


def _log(console: Console, text: str) -> None:
    with console_logging(console):
        _logger.info(text)


def _summary(result: DemoResult) -> str:
    table = result.table()
    width = max(len(row[0]) for row in (table.header, *table.rows))
    lines = [f"  {name:<{width}}  {value:>12}" for name, value in (table.header, *table.rows)]
    return "\n".join([f"{table.title}:", *lines, f"The teacher's own error is {result.teacher.top1_error:.2f} %."])
