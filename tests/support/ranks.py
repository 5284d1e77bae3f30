"""Several processes that train or label together, as torchrun starts them on one machine."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import support.networks  # noqa: F401  (registers the networks)
import torch
from rich.console import Console
from support.forkserver import start_process
from support.recipes import TINY, with_settings

from kdaug.config import to_yaml
from kdaug.photos import Request, plan_recipe
from kdaug.recipes import named_recipe
from kdaug.training import Interrupted, run, train
from kdaug.training.distributed import SyncFlags, distributed_context

TIMEOUT = 120


@dataclass
class Ranks:
    """The processes, in the order of ranks."""

    processes: list[ForkServerProcess]

    def wait(self) -> list[int | None]:
        """Waits until all have ended; their exit codes. Kills those that do not end."""
        for process in self.processes:
            process.join(TIMEOUT)
            process.kill()
            process.join()
        return [process.exitcode for process in self.processes]


def start_ranks(
    size: int, function: Callable[..., None], *arguments: Any, environment: dict[str, str] | None = None
) -> Ranks:
    """Calls `function(*arguments)` in `size` processes. environment: additional variables."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        **(environment or {}),
    }  # fmt: skip
    processes = []
    for rank in range(size):
        own = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(start_process(_run_rank, function, arguments, environment=own))
    return Ranks(processes)


def _run_rank(function: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    try:
        function(*arguments)
    except Interrupted:
        sys.exit(130)


def train_rank(settings: dict[str, Any], record: Path | None = None) -> None:
    """For `start_ranks`: trains TINY with settings, by dotted name. Records this rank's batches, see `batches_in`."""
    batches: list[dict[str, Any]] = []
    training_batches = run.training_batches

    def record_batches(*arguments: Any) -> Iterator[Any]:
        for batch in training_batches(*arguments):
            hashes = [hashlib.sha256(view.numpy().tobytes()).hexdigest() for view in batch.pixels]
            batches.append({"indices": batch.key.indices.tolist(), "labels": batch.labels.tolist(), "views": hashes})
            yield batch

    run.training_batches = record_batches
    try:
        train(with_settings(TINY, settings))
    finally:
        run.training_batches = training_batches
    if record is not None:
        record.mkdir(parents=True, exist_ok=True)
        (record / f"{os.environ.get('RANK', '0')}.json").write_text(json.dumps(batches))


def plan_rank(settings: dict[str, Any], minutes: float, record: Path) -> None:
    """For `start_ranks`: plans the recipe photos with settings given; the rank's result goes to record/RANK.yaml."""
    request = Request(
        with_settings(named_recipe("photos"), settings), frozenset(settings), minutes, started=time.monotonic()
    )
    (record / f"{os.environ['RANK']}.yaml").write_text(to_yaml(plan_recipe(request, Console(quiet=True))))


def batches_in(record: Path, rank: int = 0) -> list[dict[str, list[Any]]]:
    """The "indices", "labels" and hashes of "views" of a rank's batches, as written by `train_rank`."""
    return json.loads((record / f"{rank}.json").read_text())


def exchange_flags(record: Path) -> None:
    """For `start_ranks`: two ranks raise flags; what each gets back goes to record/RANK.json."""
    with distributed_context() as dist:
        flags = SyncFlags(dist)
        results = [flags.sync(dist.rank == 1, False), flags.sync(False, False), flags.sync(False, dist.rank == 0)]
        flags.wait()
        results.append(flags.sync(False, False))
        flags.wait()
        (record / f"{dist.rank}.json").write_text(json.dumps(results))


def meet_repeatedly() -> None:
    """For `start_ranks`: two ranks join a process group again and again."""
    for start in range(30):
        with distributed_context() as dist:
            assert dist.sum(torch.tensor([dist.rank + 1.0])).item() == 3, start
