"""kdaug demo [--out DIR]"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from kdaug.cli.parsing import parse


@dataclass(frozen=True)
class Arguments:
    """Train a teacher and two students on bundled images (minutes on 2 cores) and write a page about the result."""

    out: str = "runs/demo"
    """Folder for the runs and the page; what is finished there is not done again."""


def run(arguments: list[str]) -> int:
    """Runs the demonstration; returns the exit code."""
    given = parse(Arguments, arguments, "kdaug demo")

    from rich.console import Console

    from kdaug.demo import run_demo
    from kdaug.recipes import named_recipe
    from kdaug.training import Interrupted

    try:
        result = run_demo(named_recipe("demo"), Path(given.out), Console())
    except (Interrupted, KeyboardInterrupt):
        print(f"kdaug: interrupted; continue with: kdaug demo --out {shlex.quote(given.out)}", file=sys.stderr)
        return 130
    print(f"open {result.page} for curves, views and the teacher's judgement")
    print("on your own photos: kdaug train photos --data.root FOLDER-WITH-ONE-SUBFOLDER-PER-CLASS")
    return 0
