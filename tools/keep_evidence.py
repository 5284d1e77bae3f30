"""Copies recipe, environment and metrics of finished runs (no weights) and reports into results/, and writes a table.

    python tools/keep_evidence.py FOLDER results/NAME

FOLDER contains run directories at any depth; their relative paths are kept. results/NAME/table.md lists their final
errors. Of the step lines in metrics.jsonl at most MAX_STEPS evenly spaced ones are kept; all other lines are kept. Of
reports, the page index.html and the PDF figures are left out: report.md and the SVG figures show the same.
"""

import json
import shutil
import sys
from pathlib import Path

import yaml

COPIED = ("recipe.yaml", "environment.json")
REPORT_FILES = ("report.md", "report.json", "runs.csv", "figures/*.svg")
MAX_STEPS = 50


def end_of(run: Path) -> dict[str, float] | None:
    """The last line of the metrics of `run`; None if the run is not finished."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next((line for line in lines if line["kind"] == "end"), None)


def thin_steps(lines: list[str]) -> list[str]:
    """The lines of metrics.jsonl with at most MAX_STEPS step lines."""
    steps = [number for number, line in enumerate(lines) if json.loads(line)["kind"] == "step"]
    every = max(1, -(-len(steps) // MAX_STEPS))
    dropped = set(steps) - set(steps[::every])
    return [line for number, line in enumerate(lines) if number not in dropped]


def row(name: str, run: Path, end: dict[str, float]) -> str:
    """The table row of a run."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    cells = [
        name,
        recipe["student"]["name"],
        recipe["views"]["policy"],
        "with" if recipe["teacher"]["source"] != "none" or recipe["teacher"].get("labels") else "none",
        str(recipe["run"]["seed"]),
        str(recipe["optimization"]["epochs"]),
        f"{end['top1_error']:.2f}",
        f"{end['top5_error']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def copy_reports(source: Path, target: Path) -> None:
    """Copies the reports below `source`."""
    for report in sorted(source.rglob("report.json")):
        for file in (path for pattern in REPORT_FILES for path in report.parent.glob(pattern)):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    rows = []
    for metrics in sorted(source.rglob("metrics.jsonl")):
        run = metrics.parent
        name = str(run.relative_to(source))
        end = end_of(run)
        if end is None:
            print(f"{run} is not finished; skipped")
            continue
        (target / name).mkdir(parents=True, exist_ok=True)
        for file in COPIED:
            shutil.copyfile(run / file, target / name / file)
        (target / name / "metrics.jsonl").write_text("".join(thin_steps(metrics.read_text().splitlines(keepends=True))))
        rows.append(row(name, run, end))
    if not rows:
        sys.exit(f"{source} contains no finished run")
    copy_reports(source, target)
    head = "| run | network | views | teacher | seed | epochs | top-1 error % | top-5 error % |\n" + "|---" * 8 + "|"
    (target / "table.md").write_text("\n".join([head, *rows]) + "\n")
    print((target / "table.md").read_text(), end="")


if __name__ == "__main__":
    main()
