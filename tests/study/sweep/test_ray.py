"""Sweeps on Ray: resources and exit codes with a fake of its API; on a real cluster, lost machines and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kdaug.errors import InputError
from kdaug.runs import RunDirectory, read_metrics
from kdaug.study.sweep import Job
from kdaug.study.sweep.ray import RayWorkers

FLAGS = (
    "--teacher.source none --data.train-images 256 --optimization.global-batch 128 --optimization.epochs 16 "
    "--run.evaluate-every 16 --run.checkpoint-steps 4 --run.device cpu --run.threads 1"
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
    assert "1 of 1 jobs finished" in out
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


@pytest.mark.slow
def test_too_large_request_is_one_line(cluster: Any, tmp_path: Path) -> None:
    cluster.add_node(num_cpus=1)
    process = sweep(tmp_path, "--on", "ray", "--cpus", "64", "--gpus", "1")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "no machine of the Ray cluster has 64 CPUs and 1 GPUs; request fewer CPUs and GPUs per job" in err


class FakeRay:
    """The part of Ray's API that RayWorkers uses. A task ends when its result, or an exception, is in `results`."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self, *machines: dict[str, float]) -> None:
        self.machines = [{"Alive": True, "Resources": machine} for machine in machines]
        self.options, self.results, self.started = dict[str, Any](), dict[int, Any](), 0

    def init(self, **_: Any) -> None: ...

    def cluster_resources(self) -> dict[str, float]:
        return {name: 1.0 for machine in self.machines for name in machine["Resources"]}

    def nodes(self) -> list[dict[str, Any]]:
        return self.machines

    def remote(self, **options: Any) -> Callable[[Any], Any]:
        self.options = options
        return lambda function: SimpleNamespace(remote=self._start)

    def _start(self, *arguments: Any) -> int:
        self.started += 1
        return self.started

    def wait(self, tasks: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        return [task for task in tasks if task in self.results], [task for task in tasks if task not in self.results]

    def get(self, task: int) -> int:
        if isinstance(self.results[task], Exception):
            raise self.results[task]
        return self.results[task]


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """Two machines with 4 CPUs, one of them with 2 GPUs."""
    fake = FakeRay({"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0})
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def run_until_full(workers: RayWorkers) -> int:
    """Starts jobs while there is room; their number."""
    for count in range(20):
        if not workers.can_start():
            return count
        workers.start(Job(f"job{count + 1}", Path("nowhere"), ("train",)), Path("log"))
    raise AssertionError("there is always room")


@pytest.mark.parametrize(
    ("cpus", "gpus", "max_jobs", "expected"),
    [(1, 0.0, None, 8), (3, 0.0, None, 2), (1, 0.0, 5, 5), (1, None, None, 2), (1, 0.5, None, 4), (2, 1.0, 9, 2)],
)
def test_capacity_counts_cpus_and_gpus_of_each_machine(
    fake_ray: FakeRay, cpus: int, gpus: float | None, max_jobs: int | None, expected: int
) -> None:
    assert run_until_full(RayWorkers(cpus, gpus, max_jobs)) == expected
    assert (fake_ray.options["num_cpus"], fake_ray.options["num_gpus"]) == (cpus, 1.0 if gpus is None else gpus)


def test_lost_machines_do_not_count(fake_ray: FakeRay) -> None:
    workers = RayWorkers(1, 0.0, None)
    fake_ray.machines[1]["Alive"] = False
    assert run_until_full(workers) == 4


def test_too_large_request_is_an_error(fake_ray: FakeRay) -> None:
    with pytest.raises(
        InputError, match="no machine of the Ray cluster has 5 CPUs; request fewer CPUs and GPUs per job"
    ):
        RayWorkers(5, 0.0, None)
    with pytest.raises(InputError, match="has 1 CPUs and 3 GPUs"):
        RayWorkers(1, 3.0, None)


def test_poll_returns_exit_codes_and_1_for_a_lost_job(fake_ray: FakeRay) -> None:
    workers = RayWorkers(1, 0.0, 3)
    assert workers.poll() == {}
    assert run_until_full(workers) == 3
    fake_ray.results = {1: 0, 3: fake_ray.exceptions.RayError()}
    assert workers.poll() == {"job1": 0, "job3": 1}
    assert workers.poll() == {}
    assert workers.can_start()


def test_missing_ray_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed; pip install 'kdaug\[ray\]'"):
        RayWorkers(1, None, None)
