"""Measures how long each of the paper's studies takes at the scale smoke, which is to be three minutes on two cores.

    python benchmarks/reproduce_smoke.py                       # a line for each study, 12 minutes on two cores
    python benchmarks/reproduce_smoke.py table1 figure4        # these alone
    python benchmarks/reproduce_smoke.py --json FILE           # and everything in FILE

Each study is the whole command, from an empty folder to its report: no teacher, label or run is there before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kdaug.study.paper.studies import STUDIES
from views_benchmark.machine import load, this_machine


def seconds_of(study: str) -> float:
    """From the command to its end; SystemExit if a run failed."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [sys.executable, "-m", "kdaug", "reproduce", study, "--dir", folder, "--device", "cpu"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        taken = time.perf_counter() - began
        if done.returncode or not (Path(folder) / f"{study}-report" / "index.html").is_file():
            sys.exit(f"{study} failed")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", nargs="*", metavar="STUDY", help=f"of {', '.join(STUDIES)}; all if none is named")
    parser.add_argument("--json", type=Path, help="file for everything")
    given = parser.parse_args()
    if unknown := set(given.studies) - set(STUDIES):
        parser.error(f"there is no study {', '.join(sorted(unknown))}")
    found: dict[str, Any] = {"machine": asdict(this_machine()), "load_before": load(), "seconds": {}}
    for study in given.studies or STUDIES:
        found["seconds"][study] = round(seconds_of(study), 1)
        print(f"{study}: {found['seconds'][study]:.0f} s", flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
