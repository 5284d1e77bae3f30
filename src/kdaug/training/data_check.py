"""Checks the images of a run before its first start."""

from __future__ import annotations

import logging
from collections.abc import Callable

from kdaug.data import EncodedImages
from kdaug.data.report import REPORT_NAME, TABLE_NAME, make_report, write_report
from kdaug.errors import printable
from kdaug.runs import RunDirectory
from kdaug.training.context import TrainContext
from kdaug.training.progress import progress_bar

_logger = logging.getLogger(__name__)


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
    write_report(report, directory.path)
    for line in report.summary():
        _logger.info(f"data: {line}")
    if report.findings:
        _logger.info(f"data: all of them are listed in {printable(str(directory.path / TABLE_NAME))}")
