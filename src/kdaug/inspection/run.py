"""Inspects a recipe: predicts all views with its teacher, and writes views.csv and the page."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from kdaug.config import Recipe, to_yaml
from kdaug.data.main_guard import exit_if_spawned_worker
from kdaug.errors import InputError
from kdaug.inspection.csv_file import label_errors_csv, views_csv
from kdaug.inspection.design import Design, InspectionRequest, create_design
from kdaug.inspection.label_errors import LabelError, find_label_errors
from kdaug.inspection.table import Kind, TableBuilder, ViewTable, predict_design
from kdaug.storage import atomic_write, check_writable_folder
from kdaug.supervision import AnyTeacher
from kdaug.training.context import TrainContext, build_context
from kdaug.training.loop import get_or_train_teacher
from kdaug.training.progress import console_logging, progress_bar
from kdaug.training.resolve import resolve

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Inspection:
    """The predictions of an inspection.

    table: a row per view. unaugmented_probs: the teacher's probabilities float32 [n,C] for the unaugmented images, in
    the order of the table's rows of that kind. unreadable: how many images were left out.
    """

    design: Design
    table: ViewTable
    unaugmented_probs: NDArray[np.float32]
    unreadable: int


def inspect_recipe(recipe: Recipe, request: InspectionRequest, out: Path, console: Console) -> Inspection:
    """Inspects the views of `recipe` with its teacher; writes views.csv, label-errors.csv, recipe.yaml and index.html.

    A teacher with source "train" is trained first, next to `out`. Raises InputError for what the user can fix.
    """
    from kdaug.inspection.page import write_page  # matplotlib is slow to import

    exit_if_spawned_worker()
    with console_logging(console):
        if recipe.teacher.source == "none":
            raise InputError(
                "an inspection needs a teacher, but teacher.source is none",
                "set teacher.source to run:DIR, file:PATH, timm:NAME or train",
            )
        check_folder(out)
        context = build_context(resolve(_with_directory(recipe, out)), console)
        design = create_design(context, request)
        teacher = get_or_train_teacher(context, out)
        out.mkdir(parents=True, exist_ok=True)
        inspection = predict_to_csv(context, teacher, design, out / "views.csv")
        atomic_write(out / "recipe.yaml", to_yaml(context.recipe))
        errors = likely_label_errors(inspection)
        atomic_write(out / "label-errors.csv", label_errors_csv(context.dataset, inspection.table, errors))
        write_page(context, teacher, inspection, errors, out)
        if inspection.unreadable:
            _logger.warning("%d image(s) cannot be read and were left out", inspection.unreadable)
    return inspection


def check_folder(out: Path) -> None:
    """Raises InputError if `out` cannot be the folder of an inspection."""
    check_writable_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / "views.csv").is_file():
        raise InputError(f"{out} has other files than an inspection", "choose another folder")


def predict_to_csv(context: TrainContext, teacher: AnyTeacher, design: Design, path: Path) -> Inspection:
    """The teacher's predictions for all views of `design`, also written to the CSV file `path` meanwhile."""
    builder, probs = TableBuilder(design.count()), list[NDArray[np.float32]]()
    with progress_bar(context.console) as bar, views_csv(path, context.dataset, design) as file:
        task = bar.add_task("inspecting", total=design.count(), speed="", metrics="")
        for batch in predict_design(context, teacher, design):
            file.write(batch)
            builder.add(batch.rows)
            if batch.rows.kind[0] == Kind.UNAUGMENTED:
                probs.append(batch.probs.astype(np.float32))
            bar.advance(task, len(batch.rows))
    table = builder.build()
    unreadable = len(design.indices) - int((table.kind == Kind.UNAUGMENTED).sum())
    return Inspection(design, table, np.concatenate(probs), unreadable)


def likely_label_errors(inspection: Inspection) -> list[LabelError]:
    """Positions are those of the unaugmented images in the table."""
    table = inspection.table
    return find_label_errors(inspection.unaugmented_probs, table.label[table.kind == Kind.UNAUGMENTED])


def _with_directory(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with run.dir set to `out` if it has none: a teacher is trained in a folder next to run.dir."""
    return recipe if recipe.run.dir is not None else replace(recipe, run=replace(recipe.run, dir=str(out)))
