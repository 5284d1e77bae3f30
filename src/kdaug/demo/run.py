"""Runs the demonstration: the same student plain, under strong augmentation, and with a teacher in addition."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kdaug.config import Recipe, Teacher
from kdaug.demo.page import INSPECTION, write_page
from kdaug.demo.result import DemoResult
from kdaug.inspection import InspectionRequest, inspect_recipe
from kdaug.runs import find_run
from kdaug.storage import atomic_write
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.progress import console_logging
from kdaug.training.resolve import resolve
from kdaug.training.teacher import load_checked_teacher

_logger = logging.getLogger(__name__)


def run_demo(recipe: Recipe, out: Path, console: Console) -> DemoResult:
    """Trains the student of `recipe` without policy and teacher, without the teacher, and with both, in `out`.

    Writes summary.json (`DemoResult.summary`), index.html and an inspection of the training images to `out` and logs
    the errors to `console`. What is finished is not repeated; interrupted runs are resumed. Raises InputError if one of
    the three runs cannot be.
    """
    with_teacher_recipe = _in_directory(recipe, out / "with-teacher")
    augmented_recipe = replace(_in_directory(recipe, out / "augmented"), teacher=Teacher())
    plain_recipe = replace(
        _in_directory(recipe, out / "plain"), teacher=Teacher(), views=replace(recipe.views, policy="none")
    )
    for each in (plain_recipe, augmented_recipe, with_teacher_recipe):
        find_run(resolve(each))  # checked before the first of them is trained
    _log(console, "1 of 3: plain, which means random shifts of a few pixels only")
    plain = train(plain_recipe, console)
    _log(console, f"2 of 3: strong augmentation, {recipe.views.policy}")
    augmented = train(augmented_recipe, console)
    _log(console, "3 of 3: the same augmented images, with the teacher's soft labels")
    with_teacher = train(with_teacher_recipe, console)

    result = DemoResult(plain, augmented, with_teacher, out / "index.html")
    context = build_context(resolve(with_teacher_recipe), console)
    write_page(result, context, load_checked_teacher(context, recipe.teacher.source))
    if not (out / INSPECTION / "index.html").exists():
        _log(console, "What augmentation does to the training images, according to the teacher")
        inspect_recipe(with_teacher_recipe, InspectionRequest(), out / INSPECTION, console)
    atomic_write(out / "summary.json", json.dumps(result.summary()) + "\n")
    _log(console, _describe(result))
    return result


def _in_directory(recipe: Recipe, directory: Path) -> Recipe:
    return replace(recipe, run=replace(recipe.run, dir=str(directory), resume=True))


def _log(console: Console, text: str) -> None:
    with console_logging(console):
        _logger.info(text)


def _describe(result: DemoResult) -> str:
    table = result.table()
    width = max(len(row[0]) for row in (table.header, *table.rows))
    lines = [
        "  ".join([f"  {name:<{width}}", *(f"{value:>15}" for value in values)])
        for name, *values in (table.header, *table.rows)
    ]
    return "\n".join([f"{table.title}:", *lines, f"Training took {result.summary()['seconds']:.0f} s."])
