"""A sweep on a real Ray cluster of this machine: a lost machine's run goes on elsewhere, as if nothing had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kdaug.training import RunDirectory, read_metrics

FLAGS = (
    "--teacher.source none --data.train-images 256 --optimization.epochs 16 --run.evaluate-every 16 "
    "--run.checkpoint-steps 4 --run.device cpu --run.threads 1"
).split()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without room for jobs; machines are added with add_node."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def sweep(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kdaug", "sweep", "demo", "run.seed=0,1", "--dir", str(folder), *FLAGS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_steps(runs: list[Path], steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while any(len(read_metrics(run)) < steps for run in runs):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(600)
def test_the_run_of_a_lost_machine_goes_on_on_another(cluster: Any, tmp_path: Path) -> None:
    machines = [cluster.add_node(num_cpus=1) for _ in range(2)]
    runs = [tmp_path / "ray" / f"seed={seed}" for seed in (0, 1)]
    process = sweep(tmp_path / "ray", "--on", "ray")
    wait_for_steps(runs, 8, process)
    cluster.remove_node(machines[0], allow_graceful=False)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "2 of 2 done" in out
    logs = [(tmp_path / "ray/logs" / f"{run.name}.log").read_text() for run in runs]
    assert sum("continuing at step" in log for log in logs) == 1, "one of the two was lost"
    alone = sweep(tmp_path / "here")
    assert alone.communicate(timeout=400)[0]
    for run in runs:
        assert RunDirectory(run).finished
        expected = tmp_path / "here" / run.name / "last.safetensors"
        assert (run / "last.safetensors").read_bytes() == expected.read_bytes()


@pytest.mark.timeout(300)
def test_ctrl_c_stops_what_runs_on_the_cluster_with_a_checkpoint(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    process = sweep(
        tmp_path / "ray", "--on", "ray", "--optimization.epochs", "2000", "--run.checkpoint-steps", "100000"
    )
    run = tmp_path / "ray/seed=0"
    wait_for_steps([run], 3, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "kdaug: interrupted" in err
    assert not (tmp_path / "ray/seed=1").exists(), "there was room for one"
    assert list((run / "checkpoints").glob("step-*")), "nothing of it is lost"
    assert not RunDirectory(run).finished
    assert json.loads((tmp_path / "ray/failed.json").read_text()) == {}


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--cpus", "64"], "no machine of the Ray cluster has 64 CPUs; give less with --cpus and --gpus"),
        (["--gpus", "1"], "no machine of the Ray cluster has 1 CPUs and 1 GPUs"),
        (["--cpus", "0"], "--cpus and --jobs must be at least 1"),
    ],
)
def test_what_the_cluster_does_not_have_is_told(cluster: Any, tmp_path: Path, flags: list[str], complaint: str) -> None:
    cluster.add_node(num_cpus=1)
    process = sweep(tmp_path / "ray", "--on", "ray", *flags)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert complaint in err
