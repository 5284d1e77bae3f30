"""benchmarks/gpu.sh at a small size without a GPU: what each part writes, and that it keeps to its budget."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEVICE": "cpu", "JOBS": "1"}
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_usage_without_arguments() -> None:
    output = run_script()
    assert output.returncode == 2
    assert "usage: benchmarks/gpu.sh SECONDS OUT" in output.stdout


def test_spent_budget_starts_nothing(tmp_path: Path) -> None:
    output = run_script(5, tmp_path, "table1")
    assert output.returncode == 0, output.stderr
    assert "no time left for" in output.stdout
    assert not (tmp_path / "table1.tar.gz").exists()


@pytest.mark.slow
def test_steps_are_measured(tmp_path: Path) -> None:
    output = run_script(500, tmp_path, "steps")
    assert output.returncode == 0, output.stderr
    for name in ("wide-resnet28-10", "small-eager", "small-compiled", "photos"):
        report = json.loads((tmp_path / f"step-{name}.json").read_text(encoding="utf-8"))
        assert report["settings"]["compiled"] == (name == "small-compiled")
    with tarfile.open(tmp_path / "all.tar.gz") as archive:
        assert "step-photos.json" in [Path(name).name for name in archive.getnames()]


@pytest.mark.slow
def test_table1_keeps_to_its_budget_and_packs_runs_without_weights(tmp_path: Path) -> None:
    start = time.monotonic()
    output = run_script(90, tmp_path, "table1")
    assert output.returncode == 0, output.stderr
    assert time.monotonic() - start < 100
    assert not (tmp_path / "runs").exists()
    with tarfile.open(tmp_path / "table1.tar.gz") as archive:
        names = archive.getnames()
        metrics = archive.extractfile("runs/cifar100-table1-m0_seed=0/metrics.jsonl")
        assert metrics is not None
        assert json.loads(metrics.read().splitlines()[-1])["kind"] == "end"
    assert "runs/table1-report/report.json" in names
    assert not [name for name in names if name.endswith((".safetensors", ".pt"))]
