"""Checks the images of a run before its first start."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kdaug.data import EncodedImages
from kdaug.data.report import REPORT_NAME, TABLE_NAME, DataReport, make_report, write_report
from kdaug.errors import InputError, printable
from kdaug.intervals import wilson_interval
from kdaug.runs import RunDirectory
from kdaug.training.context import TrainContext
from kdaug.training.progress import progress_bar

_logger = logging.getLogger(__name__)


SMALL_VALIDATION = 100
"""With fewer validation images an interval of the error may be 20 points wide, so a line says it."""


def check_data(context: TrainContext, directory: RunDirectory, before_batch: Callable[[], None]) -> None:
    """Writes the report on the images into the run directory and logs its findings, if data.check is set.

    Only when a run starts for the first time, and only for image files. before_batch: is called before each group of
    images is read; its exceptions end the check, which the next start repeats.
    """
    dataset = context.dataset
    is_checked = context.resumes or (directory.path / REPORT_NAME).exists()
    if not context.recipe.data.check or is_checked or not isinstance(dataset.train, EncodedImages):
        return
    total = len(dataset.train) + len(dataset.val)
    with progress_bar(context.console) as bar:
        task = bar.add_task("checking images", total=total, speed="", metrics="")

        def report_progress(done: int) -> None:
            before_batch()
            bar.update(task, completed=done)

        report = make_report(dataset, report_progress)
    try:
        _check_unreadable(report, context)
    except InputError:
        directory.recipe.unlink()  # nothing was trained, so the same command may start again with repaired files
        raise
    write_report(report, directory.path)
    for line in report.summary():
        _logger.info(f"data: {line}")
    if len(dataset.val) < SMALL_VALIDATION:
        low, high = (100 * bound for bound in wilson_interval(0.5, len(dataset.val)))
        _logger.info(
            f"data: {len(dataset.val)} validation images measure an error of 50 % as {low:.0f} to {high:.0f} %; "
            "for smaller intervals put more photos into val/, or set data.val_fraction"
        )
    if report.findings:
        _logger.info(f"data: all of them are listed in {printable(str(directory.path / TABLE_NAME))}")


def _check_unreadable(report: DataReport, context: TrainContext) -> None:
    """Raises InputError if more images of a split are unreadable than data.max_unreadable allows."""
    unreadable = [path for path, _ in report.unreadable]
    for images, limit in (
        (context.dataset.train, context.unreadable_train),
        (context.dataset.val, context.unreadable_val),
    ):
        if isinstance(images, EncodedImages) and unreadable:
            names = {images.name_of(row) for row in range(len(images))}
            limit.check_limit([path for path in unreadable if path in names])
