"""docs/slurm.sh with simulated SLURM commands: at its time limit the job requeues itself and the run resumes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.runs import read_lines, step_numbers

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.sh"
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/bash\ncase $1 in show) echo localhost ;; requeue) echo "$2" > "$REQUEUED" ;; esac\n'
FLAGS = (
    "--teacher.source none --data.train-images 256 --optimization.global-batch 64 --optimization.epochs 8 "
    "--run.device cpu --run.threads 1 --run.checkpoint-steps 1"
).split()
TIMEOUT = 120


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of a job on one node with two processes."""
    (tmp_path / "bin").mkdir()
    for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return {
        **os.environ, "PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}", "PORT": str(port),
        "SLURM_JOB_ID": "17", "SLURM_JOB_NODELIST": "n", "SLURM_JOB_NUM_NODES": "1", "SLURM_GPUS_ON_NODE": "2",
        "REQUEUED": str(tmp_path / "requeued"),
    }  # fmt: skip


@pytest.mark.slow
def test_a_job_at_its_time_limit_is_requeued_and_resumes(tmp_path: Path, slurm: dict[str, str]) -> None:
    run = tmp_path / "run"
    command = ["bash", str(SCRIPT), "demo", str(run), *FLAGS]
    job = subprocess.Popen(command, env=slurm, start_new_session=True, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + TIMEOUT
    while not list((run / "checkpoints").glob("step-*")):
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)  # to the script alone, as --signal=B:TERM@120 does
    job.communicate(timeout=TIMEOUT)
    assert (tmp_path / "requeued").read_text() == "17\n"
    assert not read_lines(run, "end")

    assert subprocess.run(command, env={**slurm, "SLURM_RESTART_COUNT": "1"}, timeout=TIMEOUT).returncode == 0
    assert step_numbers(run) == list(range(1, 33))
    assert read_lines(run, "end")
