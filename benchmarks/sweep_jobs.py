"""Measures a sweep of four runs of the demonstration's network with one job at a time and with two.

    python benchmarks/sweep_jobs.py                   # 3 minutes; a line for each
    python benchmarks/sweep_jobs.py --json FILE       # also writes all measurements to FILE

With one job at a time a run uses all cores, with two each uses half of them. The times include starting the processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.machine import load_average, this_machine
from harness.report import write_json
from harness.script import script_parser

ROUNDS = 2
JOBS = (1, 2)
SWEEP = (
    "sweep", "demo", "run.seed=0,1,2,3", "--teacher.source", "none", "--data.name", "bundled",
    "--data.no-measure-unused", "--data.train-images", "4000", "--optimization.global-batch", "128",
    "--optimization.epochs", "4", "--run.evaluate-every", "4",
)  # fmt: skip


def sweep_seconds(jobs: int) -> float:
    """The wall time of the sweep in a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "kdaug", *SWEEP, "--jobs", str(jobs), "--dir", str(Path(folder) / "sweep")]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - start


def main() -> None:
    args = script_parser(__doc__ or "").parse_args()
    report: dict[str, Any] = {"machine": asdict(this_machine()), "load_before": load_average(), "command": SWEEP}
    rounds = [{jobs: round(sweep_seconds(jobs), 2) for jobs in JOBS} for _ in range(ROUNDS)]
    report["seconds"] = {f"--jobs {jobs}": [each[jobs] for each in rounds] for jobs in JOBS}
    for name, seconds in report["seconds"].items():
        print(f"{name}: {', '.join(f'{value:.1f}' for value in seconds)} s")
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
