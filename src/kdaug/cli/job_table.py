"""Runs the jobs of sweep and reproduce and shows their state: a live table, or lines if stdout is no terminal."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import get_args

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kdaug.cli.output import percent, print_error
from kdaug.config import Recipe, read_recipe
from kdaug.runs import RunFollower
from kdaug.study.sweep import JobState, JobStatus, Workers, plan_jobs, run_jobs
from kdaug.training.progress import console_logging

_ORDER: tuple[JobState, ...] = get_args(JobState)
_MOST_ROWS = 30


def run_sweep(recipes: Mapping[str, Recipe], folder: Path, workers: Workers, *, share_labels: bool, retry: bool) -> int:
    """Trains every recipe that is not finished and prints how its jobs ended; returns 1 if one did not finish, else 0.

    share_labels: see `plan_jobs`. retry: whether jobs that failed in an earlier call run again.
    """
    with console_logging(Console(stderr=True)):
        jobs = plan_jobs(recipes, folder, share_labels)
    try:
        with JobsTable() as table:
            statuses = run_jobs(jobs, folder, workers, retry, table.show)
    except KeyboardInterrupt:
        print_error("all jobs are stopped, each with a checkpoint; the same command resumes them")
        raise
    unfinished = [status for status in statuses if status.state != "finished"]
    for status in unfinished:
        print_error(f"{status.job.name} {status.state}: {status.message}")
    if any(status.state == "failed" for status in unfinished):
        print_error("correct the cause, then re-run failed jobs with --retry")
    print(f"{len(statuses) - len(unfinished)} of {len(statuses)} jobs finished in {shlex.quote(str(folder))}")
    return 1 if unfinished else 0


class JobsTable:
    """Shows the state of every job: a live table on a terminal, otherwise one line for every change of state."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._states = dict[str, str]()
        self._followers = dict[str, RunFollower]()

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
        """Updates the table, or prints a line for each job whose state has changed."""
        if self._live is not None:
            self._live.update(self._table(statuses), refresh=True)
            return
        finished = sum(status.state == "finished" for status in statuses)
        for status in statuses:
            name, state = status.job.name, status.state
            if state != self._states.get(name, "waiting"):
                run = self._follow(status) if state == "finished" else None
                error = "" if run is None else f", error {percent(run.error)}"
                print(f"[{finished}/{len(statuses)}] {name}: {state}{error}", flush=True)
            self._states[name] = state

    def _table(self, statuses: Sequence[JobStatus]) -> Table:
        counts = Counter(status.state for status in statuses)
        table = Table(box=None, pad_edge=False)
        table.title = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
        for heading in ("run", "state", "epochs", "error", "lowest"):
            table.add_column(heading, justify="left" if heading in ("run", "state") else "right", no_wrap=True)
        ordered = sorted(statuses, key=lambda status: _ORDER.index(status.state))
        for status in ordered[:_MOST_ROWS]:
            run = self._follow(status)
            cells = [status.job.name, status.state]
            if run is not None:
                cells += [f"{run.done}/{run.epochs}", percent(run.error), percent(run.best)]
            table.add_row(*(Text(cell) for cell in cells))  # Text: a name may contain markup
        if len(ordered) > _MOST_ROWS:
            table.add_row(f"and {len(ordered) - _MOST_ROWS} more")
        return table

    def _follow(self, status: JobStatus) -> RunFollower | None:
        """The progress of a training run; None for a labeling job and for a run that has not started."""
        job = status.job
        if not job.trains or not (job.path / "recipe.yaml").is_file():
            return None
        if job.name not in self._followers:
            settings = read_recipe(job.path / "recipe.yaml").optimization
            self._followers[job.name] = RunFollower(job.path / "metrics.jsonl", settings.total_epochs)
        run = self._followers[job.name]
        run.update()
        return run
