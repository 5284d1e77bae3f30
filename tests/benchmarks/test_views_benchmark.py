"""The benchmark of views runs, says what it could not measure, and its page shows the results there are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = [(size, filter) for size in (32, 224) for filter in ("nearest", "bilinear")]


def run(*arguments: str, shadow: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The benchmark; what lies in `shadow` is imported instead of what is installed."""
    found = [str(shadow)] if shadow else []
    path = os.pathsep.join([*found, *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    environment.pop("KDAUG_DATA", None)
    command = [sys.executable, str(ROOT / "benchmarks" / "views.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=250)


@pytest.mark.slow
def test_a_short_run_measures_what_is_there_and_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "kornia.py").write_text("raise ImportError('kornia is not here')\n")
    written = tmp_path / "views.json"
    done = run("--only", "ours,pillow,kornia", "--seconds", "0.1", "--json", str(written), shadow=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(written.read_text(encoding="utf-8"))

    measured = {(one["contender"], one["size"], one["filter"]): one["microseconds"] for one in report["timings"]}
    assert set(measured) == {(name, *setting) for name in ("ours", "pillow") for setting in SETTINGS}
    for spread in measured.values():
        assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
        assert len(spread["rounds"]) == 15
    missing = {one["name"]: one["missing"] for one in report["entrants"]}
    assert missing == {"ours": None, "pillow": None, "kornia": "kornia is not here"}
    assert all(one["differs"] for one in report["entrants"])

    assert len(report["two_threads"]["rounds"]) == 5 * len(SETTINGS)
    machine = report["machine"]
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert {"numpy", "numba", "pillow", "torchvision", "kornia"} <= set(machine["versions"])
    assert [(one["size"], one["images"]) for one in report["batches"]] == [(32, 1024), (224, 128)]
    assert all("Fashion-MNIST" in one["source"] for one in report["batches"])
    assert {one["measured"] for one in report["targets"]} == {None}

    assert "**Missing: kornia is not here.**" in done.stdout
    assert "round 15 of 15" in done.stderr
    assert run("--table", str(written)).stdout == done.stdout


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    done = run("--only", "ours,korina")
    assert done.returncode == 2
    assert "there is no 'korina'; there are ours, ours-2," in done.stderr


def test_the_page_shows_the_results_in_the_repository() -> None:
    results = ROOT / "benchmarks" / "results" / "views.json"
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    begin, end = "<!-- begin: python benchmarks/views.py --table benchmarks/results/views.json -->", "<!-- end -->"
    assert page.partition(begin)[2].partition(end)[0].strip() == run("--table", str(results)).stdout.strip()
