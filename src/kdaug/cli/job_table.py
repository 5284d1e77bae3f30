"""Doing the jobs of sweep and reproduce before the user's eyes: a live table, or lines where nobody watches."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdaug.cli.output import percent, print_error
from kdaug.config import read_recipe
from kdaug.runs.follow import RunFollower
from kdaug.study.sweep import Job, JobState, JobStatus, Workers, run_jobs
from kdaug.training.progress import print_line

_ORDER: tuple[JobState, ...] = get_args(JobState)
_MOST_ROWS = 30


def run_jobs_with_table(jobs: Sequence[Job], folder: Path, workers: Workers, retry: bool) -> int:
    """Does what is not done of `jobs` and says how it ended; the exit code, 1 if a job failed or was stopped."""
    try:
        with JobsTable() as table:
            statuses = run_jobs(jobs, folder, workers, retry, table.show)
    except KeyboardInterrupt:
        print_error("all jobs are stopped, each with a checkpoint; the same command again goes on with them")
        raise
    undone = [status for status in statuses if status.state != "finished"]
    for status in undone:
        print_error(f"{status.job.name} {status.state}: {status.message}")
    if any(status.state == "failed" for status in undone):
        print_error("what is mended is tried again with --retry")
    print(f"{len(statuses) - len(undone)} of {len(statuses)} done in {shlex.quote(str(folder))}")
    return 1 if undone else 0


class JobsTable:
    """Shows how far every job is: a table on a terminal, elsewhere a line for every change."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown = dict[str, str]()
        self._followed = dict[str, RunFollower]()

    def __enter__(self) -> JobsTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, statuses: Sequence[JobStatus]) -> None:
        """Brings what is shown up to date."""
        if self._live is not None:
            self._live.update(self._table(statuses), refresh=True)
            return
        finished = sum(status.state == "finished" for status in statuses)
        for status in statuses:
            name, state = status.job.name, status.state
            if state != self._shown.get(name, "waiting"):
                print_line(self._console, f"[{finished}/{len(statuses)}] {name}: {state}{self._figures(status)}")
                self._console.file.flush()
            self._shown[name] = state

    def _table(self, statuses: Sequence[JobStatus]) -> Table:
        counts = Counter(status.state for status in statuses)
        table = Table(box=None, pad_edge=False)
        table.title = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
        for heading in ("run", "state", "epochs", "error", "lowest"):
            table.add_column(heading, justify="left" if heading in ("run", "state") else "right", no_wrap=True)
        ordered = sorted(statuses, key=lambda status: _ORDER.index(status.state))
        for status in ordered[:_MOST_ROWS]:
            run = self._look(status)
            cells = [status.job.name, status.state]
            if run is not None:
                cells += [f"{run.done}/{run.epochs}", percent(run.error), percent(run.best)]
            table.add_row(*(Text(cell) for cell in cells))  # Text: nothing in a name is markup
        if len(ordered) > _MOST_ROWS:
            table.add_row(f"and {len(ordered) - _MOST_ROWS} more")
        return table

    def _look(self, status: JobStatus) -> RunFollower | None:
        """How far a run is; None for what is none, or has not begun."""
        job = status.job
        if not job.trains or not (job.path / "recipe.yaml").is_file():
            return None
        if job.name not in self._followed:
            settings = read_recipe(job.path / "recipe.yaml").optimization
            self._followed[job.name] = RunFollower(job.path / "metrics.jsonl", settings.all_epochs)
        run = self._followed[job.name]
        run.update()
        return run

    def _figures(self, status: JobStatus) -> str:
        run = self._look(status) if status.state == "finished" else None
        return f", error {percent(run.error)}" if run is not None else ""
