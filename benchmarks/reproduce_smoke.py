"""Measures how long each of the paper's studies takes at the scale smoke. The target is three minutes on two cores.

    python benchmarks/reproduce_smoke.py                       # a line for each study, 12 minutes on two cores
    python benchmarks/reproduce_smoke.py table1 figure4        # these studies only
    python benchmarks/reproduce_smoke.py --json FILE           # also writes all measurements to FILE

Each study is the whole command in an empty folder, including teachers, labels, runs and the report.
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
from kdaug.study.paper.studies import STUDIES


def seconds_of(study: str) -> float:
    """Seconds that the command takes; exits if a run failed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "kdaug", "reproduce", study, "--dir", folder, "--device", "cpu"]
        process = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        seconds = time.perf_counter() - start
        if process.returncode or not (Path(folder) / f"{study}-report" / "index.html").is_file():
            sys.exit(f"benchmarks/reproduce_smoke.py: {study} failed")
    return seconds


def main() -> None:
    parser = script_parser(__doc__ or "")
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"from {', '.join(STUDIES)} (default: all)")
    args = parser.parse_args()
    if unknown := set(args.studies) - set(STUDIES):
        parser.error(f"unknown study: {', '.join(sorted(unknown))}; choose from {', '.join(STUDIES)}")
    report: dict[str, Any] = {"machine": asdict(this_machine()), "load_before": load_average(), "seconds": {}}
    for study in args.studies or STUDIES:
        report["seconds"][study] = round(seconds_of(study), 1)
        print(f"{study}: {report['seconds'][study]:.0f} s", flush=True)
        if args.json:
            write_json(args.json, report)


if __name__ == "__main__":
    main()
