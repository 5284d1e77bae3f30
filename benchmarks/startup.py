"""Measures how long `import kdaug` and the commands that only print take.

    python benchmarks/startup.py                   # a line for each
    python benchmarks/startup.py --json FILE       # also writes all measurements to FILE

Each is run in five new processes, and the shortest time counts. The target is one second.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict
from typing import Any

from harness.machine import load_average, this_machine
from harness.report import write_json
from harness.script import script_parser

ROUNDS = 5
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import kdaug": ("-c", "import kdaug"),
    "kdaug --help": ("-m", "kdaug", "--help"),
    "kdaug --version": ("-m", "kdaug", "--version"),
    "kdaug recipes": ("-m", "kdaug", "recipes"),
    "kdaug views": ("-m", "kdaug", "views"),
}


def shortest_seconds(arguments: tuple[str, ...]) -> float:
    """The shortest time of a new Python process with `arguments`."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    args = script_parser(__doc__ or "").parse_args()
    report: dict[str, Any] = {"machine": asdict(this_machine()), "load_before": load_average(), "seconds": {}}
    for name, arguments in COMMANDS.items():
        report["seconds"][name] = round(shortest_seconds(arguments), 3)
        print(f"{name}: {report['seconds'][name]:.2f} s", flush=True)
    if args.json:
        write_json(args.json, report)


if __name__ == "__main__":
    main()
