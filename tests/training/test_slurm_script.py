"""docs/slurm.sh, with stand-ins for SLURM's own commands: at its time limit it queues itself again and goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "slurm.sh"
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
SCONTROL = '#!/bin/bash\ncase $1 in show) echo localhost ;; requeue) echo "$2" > "$REQUEUED" ;; esac\n'
FLAGS = (
    "--teacher.source none --data.train-images 256 --optimization.global-batch 64 --optimization.epochs 8 "
    "--run.device cpu --run.threads 1 --run.checkpoint-steps 1"
).split()
PATIENCE = 120


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
def test_a_job_whose_time_is_up_queues_itself_again_and_the_run_goes_on(tmp_path: Path, slurm: dict[str, str]) -> None:
    run = tmp_path / "run"
    command = ["bash", str(SCRIPT), "demo", str(run), *FLAGS]
    job = subprocess.Popen(command, env=slurm, start_new_session=True, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + PATIENCE
    while not list((run / "checkpoints").glob("step-*")):
        assert job.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)  # to the script alone, as --signal=B:TERM@120 does
    job.communicate(timeout=PATIENCE)
    assert (tmp_path / "requeued").read_text() == "17\n"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert lines[-1]["kind"] != "end"

    again = subprocess.run(command, env={**slurm, "SLURM_RESTART_COUNT": "1"}, timeout=PATIENCE)
    assert again.returncode == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 33))
    assert lines[-1]["kind"] == "end"
