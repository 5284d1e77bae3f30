"""Several processes that train the tests' tiny recipe together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 120
TESTS = Path(__file__).parents[1]


@dataclass
class Ranks:
    """The processes, in the order of ranks, and the folder where they record their batches."""

    processes: list[subprocess.Popen[str]]
    record: Path

    def wait(self) -> list[int]:
        """Waits until all have ended; their exit codes."""
        for process in self.processes:
            process.communicate(timeout=TIMEOUT)
        return [process.returncode for process in self.processes]

    def batches(self) -> list[list[dict[str, list[Any]]]]:
        """For each rank, the "indices", "labels" and hashes of "views" of every step."""
        return [json.loads((self.record / f"{rank}.json").read_text()) for rank in range(len(self.processes))]


def start_ranks(size: int, record: Path, settings: dict[str, Any]) -> Ranks:
    """Starts `size` processes on this machine, as torchrun does. settings: by dotted name, see `train_rank`."""
    record.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [sys.executable, "-m", "support.train_rank", str(record), json.dumps(settings)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    return Ranks(processes, record)
