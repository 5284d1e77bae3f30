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

from kdaug.cli.speaking import complain, percent
from kdaug.config import read_recipe
from kdaug.study import Job, Standing, State, Workers, do_jobs
from kdaug.training.following import FollowedRun
from kdaug.training.progress import say

_ORDER: tuple[State, ...] = get_args(State)
_MOST_ROWS = 30


def carry_out(jobs: Sequence[Job], folder: Path, workers: Workers, retry: bool) -> int:
    """Does what is not done of `jobs` and says how it ended; the exit code, 1 if a job failed or was stopped."""
    try:
        with JobsTable() as table:
            standings = do_jobs(jobs, folder, workers, retry, table.show)
    except KeyboardInterrupt:
        complain("all jobs are stopped, each with a checkpoint; the same command again goes on with them")
        raise
    undone = [standing for standing in standings if standing.state != "finished"]
    for standing in undone:
        complain(f"{standing.job.name} {standing.state}: {standing.said}")
    if any(standing.state == "failed" for standing in undone):
        complain("what is mended is tried again with --retry")
    print(f"{len(standings) - len(undone)} of {len(standings)} done in {shlex.quote(str(folder))}")
    return 1 if undone else 0


class JobsTable:
    """Shows how far every job is: a table on a terminal, elsewhere a line for every change."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._shown = dict[str, str]()
        self._followed = dict[str, FollowedRun]()

    def __enter__(self) -> JobsTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, standings: Sequence[Standing]) -> None:
        """Brings what is shown up to date."""
        if self._live is not None:
            self._live.update(self._table(standings), refresh=True)
            return
        finished = sum(standing.state == "finished" for standing in standings)
        for standing in standings:
            name, state = standing.job.name, standing.state
            if state != self._shown.get(name, "waiting"):
                say(self._console, f"[{finished}/{len(standings)}] {name}: {state}{self._figures(standing)}")
                self._console.file.flush()
            self._shown[name] = state

    def _table(self, standings: Sequence[Standing]) -> Table:
        counts = Counter(standing.state for standing in standings)
        table = Table(box=None, pad_edge=False)
        table.title = ", ".join(f"{counts[state]} {state}" for state in _ORDER if counts[state])
        for heading in ("run", "state", "epochs", "error", "lowest"):
            table.add_column(heading, justify="left" if heading in ("run", "state") else "right", no_wrap=True)
        ordered = sorted(standings, key=lambda standing: _ORDER.index(standing.state))
        for standing in ordered[:_MOST_ROWS]:
            run = self._look(standing)
            cells = [standing.job.name, standing.state]
            if run is not None:
                cells += [f"{run.done}/{run.epochs}", percent(run.error), percent(run.best)]
            table.add_row(*(Text(cell) for cell in cells))  # Text: nothing in a name is markup
        if len(ordered) > _MOST_ROWS:
            table.add_row(f"and {len(ordered) - _MOST_ROWS} more")
        return table

    def _look(self, standing: Standing) -> FollowedRun | None:
        """How far a run is; None for what is none, or has not begun."""
        job = standing.job
        if not job.trains or not (job.place / "recipe.yaml").is_file():
            return None
        if job.name not in self._followed:
            settings = read_recipe(job.place / "recipe.yaml").optimization
            self._followed[job.name] = FollowedRun(job.place / "metrics.jsonl", settings.all_epochs)
        run = self._followed[job.name]
        run.look()
        return run

    def _figures(self, standing: Standing) -> str:
        run = self._look(standing) if standing.state == "finished" else None
        return f", error {percent(run.error)}" if run is not None else ""
