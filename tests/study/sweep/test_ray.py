"""A sweep on a Ray cluster on this machine: the run of a lost machine resumes on another, bit-exactly."""

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

from kdaug.runs import RunDirectory, read_metrics

FLAGS = (
    "--teacher.source none --data.train-images 256 --optimization.epochs 16 --run.evaluate-every 16 "
    "--run.checkpoint-steps 4 --run.device cpu --run.threads 1"
).split()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head runs no jobs; add_node adds machines."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    cluster.shutdown()


def sweep(folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kdaug", "sweep", "demo", "run.seed=0", "--dir", str(folder), *FLAGS, *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_steps(run: Path, steps: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while len(read_metrics(run)) < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_run_of_a_lost_machine_resumes_on_another(cluster: Any, tmp_path: Path) -> None:
    machine = cluster.add_node(num_cpus=1)
    process = sweep(tmp_path / "ray", "--on", "ray")
    wait_for_steps(tmp_path / "ray/seed=0", 8, process)
    cluster.add_node(num_cpus=1)
    cluster.remove_node(machine, allow_graceful=False)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "1 of 1 done" in out
    assert "continuing at step" in (tmp_path / "ray/logs/seed=0.log").read_text()
    assert sweep(tmp_path / "local").communicate(timeout=400)[0]
    weights = [(tmp_path / name / "seed=0/last.safetensors").read_bytes() for name in ("ray", "local")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_on_ray_leaves_a_checkpoint(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    process = sweep(tmp_path, "--on", "ray", "--optimization.epochs", "2000", "--run.checkpoint-steps", "100000")
    run = tmp_path / "seed=0"
    wait_for_steps(run, 3, process)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "kdaug: interrupted" in err
    assert list((run / "checkpoints").glob("step-*"))
    assert not RunDirectory(run).is_finished
    assert json.loads((tmp_path / "failed.json").read_text()) == {}


def test_too_large_request_is_an_error(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    process = sweep(tmp_path, "--on", "ray", "--cpus", "64", "--gpus", "1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no machine of the Ray cluster has 64 CPUs and 1 GPUs; request fewer CPUs and GPUs per job" in err
