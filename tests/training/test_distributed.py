"""Several processes learn what one would: the same views in the same order, the same figures, resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from kdaug import InputError
from kdaug.config import Optimization, Recipe, Run
from kdaug.data.loader import BatchKey, evaluation_keys
from kdaug.training.distributed import DistContext, SyncFlags, is_lost_connection, is_restarted_job
from kdaug.training.parallel import accumulation_steps, check_parallel, place_network, prepare_network

PATIENCE = 120
SCRIPT = Path(__file__).with_name("one_rank.py")
SHARED = {"optimization.global_batch": 48, "data.train_images": 240, "run.checkpoint_steps": 1}


@dataclass
class Ranks:
    """Processes that train together, and where they note what they see."""

    processes: list[subprocess.Popen[str]]
    record: Path

    def finish(self) -> list[int]:
        """Exit codes, in the order of ranks."""
        for process in self.processes:
            process.communicate(timeout=PATIENCE)
        return [process.returncode for process in self.processes]

    def seen(self) -> list[list[dict[str, list[Any]]]]:
        """What each rank saw at each step."""
        return [json.loads((self.record / f"{rank}.json").read_text()) for rank in range(len(self.processes))]


def start(size: int, record: Path, settings: dict[str, Any]) -> Ranks:
    """As torchrun starts `size` processes on one machine."""
    record.mkdir(exist_ok=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), str(record), json.dumps({**SHARED, **settings})]
    processes = []
    for rank in range(size):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size)}
        environment = {**os.environ, **shared, **own}
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    return Ranks(processes, record)


def lines(run: Path, kind: str) -> list[dict[str, Any]]:
    return [line for text in (run / "metrics.jsonl").open() if (line := json.loads(text))["kind"] == kind]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Path, Ranks]]:
    """The same recipe, a softmax regression with dropout off, trained by 1, 2 and 3 processes."""
    place = tmp_path_factory.mktemp("worlds")
    trained = {}
    for size in (1, 2, 3):
        ranks = start(size, place / f"seen-{size}", {"run.dir": str(place / f"run-{size}")})
        assert ranks.finish() == [0] * size
        trained[size] = (place / f"run-{size}", ranks)
    return trained


@pytest.mark.parametrize("size", [2, 3])
def test_views_order_and_labels_are_the_same_for_every_number_of_processes(
    worlds: dict[int, tuple[Path, Ranks]], size: int
) -> None:
    (alone,), ranks = worlds[1][1].seen(), worlds[size][1].seen()
    assert len(alone) == 10
    for step, whole in enumerate(alone):
        for name in ("indices", "labels", "views"):
            shares = [rank[step][name] for rank in ranks]
            assert [len(share) for share in shares] == [48 // size] * size
            assert [item for share in shares for item in share] == whole[name]


@pytest.mark.parametrize("size", [2, 3])
def test_what_is_learned_and_measured_is_the_same_up_to_rounding(
    worlds: dict[int, tuple[Path, Ranks]], size: int
) -> None:
    alone, together = worlds[1][0], worlds[size][0]
    assert [step["loss"] for step in lines(together, "step")] == pytest.approx(
        [step["loss"] for step in lines(alone, "step")], rel=1e-5
    )
    weights = [safetensors.torch.load_file(run / "last.safetensors") for run in (alone, together)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)
    for one, other in zip(lines(alone, "eval"), lines(together, "eval"), strict=True):
        assert other["images"] == one["images"] == 2000
        assert other["top1_error"] == pytest.approx(one["top1_error"], abs=0.11)  # two images at a tie
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)
    assert json.loads((together / "environment.json").read_text())["processes"] == size


def test_three_processes_stopped_by_sigterm_stop_at_one_step_and_go_on_bit_for_bit(tmp_path: Path) -> None:
    """A convolutional network with batch norm and dropout, whose average is kept."""
    settings = {"student.name": "small_convnet", "optimization.ema_decay": 0.9, "run.resume": True}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert start(3, tmp_path / "seen", {**settings, "run.dir": str(whole)}).finish() == [0, 0, 0]

    ranks = start(3, tmp_path / "seen-stopped", {**settings, "run.dir": str(stopped)})
    until = time.monotonic() + PATIENCE
    while not list((stopped / "checkpoints").glob("step-*")):
        assert time.monotonic() < until
        time.sleep(0.005)
    ranks.processes[1].send_signal(signal.SIGTERM)  # one is enough: all stop
    assert ranks.finish() == [130, 130, 130]
    reached = [int(path.name[5:]) for path in (stopped / "checkpoints").glob("step-*")]
    assert max(reached) < 10
    assert [line["step"] for line in lines(stopped, "step")] == list(range(1, max(reached) + 1))

    resumed = start(3, tmp_path / "seen-resumed", {**settings, "run.dir": str(stopped)})
    assert resumed.finish() == [0, 0, 0]
    assert len(resumed.seen()[0]) == 10 - max(reached)
    assert (stopped / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()
    for kind in ("step", "eval"):
        assert lines(stopped, kind) == lines(whole, kind)


def test_every_process_has_noise_of_its_own_and_a_checkpoint_keeps_it(worlds: dict[int, tuple[Path, Ranks]]) -> None:
    checkpoint = max((worlds[3][0] / "checkpoints").iterdir())
    generators = torch.load(checkpoint / "state.pt", weights_only=True)["generators"]
    assert len({states["cpu"].numpy().tobytes() for states in generators}) == 3


@pytest.mark.slow
def test_a_network_spread_over_processes_learns_the_same_and_its_checkpoint_is_anyones(tmp_path: Path) -> None:
    """FSDP2 against DDP on two processes; then its half-way checkpoint finished by one process alone."""
    settings = {"student.name": "softmax_regression", "optimization.ema_decay": 0.9, "optimization.optimizer": "adamw"}
    replicated, spread = tmp_path / "replicated", tmp_path / "spread"
    assert start(2, tmp_path / "a", {**settings, "run.dir": str(replicated)}).finish() == [0, 0]
    sharded = {**settings, "run.dir": str(spread), "run.shard": True}
    assert start(2, tmp_path / "b", sharded).finish() == [0, 0]
    files = [safetensors.torch.load_file(run / "last.safetensors") for run in (replicated, spread)]
    assert files[0].keys() == files[1].keys()
    for name in files[0]:
        torch.testing.assert_close(files[0][name], files[1][name], rtol=1e-4, atol=1e-6)
    checkpoints = [max((run / "checkpoints").iterdir()) for run in (replicated, spread)]
    assert len({tuple(sorted(p.name for p in folder.iterdir())) for folder in checkpoints}) == 1
    assert [s["loss"] for s in lines(spread, "step")] == pytest.approx(
        [s["loss"] for s in lines(replicated, "step")], rel=1e-5
    )

    (spread / "last.safetensors").unlink()
    alone = {**settings, "run.dir": str(spread), "run.resume": True}
    newest = max((spread / "checkpoints").iterdir())
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    finished = start(1, tmp_path / "c", alone)
    assert finished.finish() == [0]
    assert len(finished.seen()[0]) == 1
    last = safetensors.torch.load_file(spread / "last.safetensors")
    for name in last:
        torch.testing.assert_close(last[name], files[1][name], rtol=1e-4, atol=1e-6)


MEETING = """
import sys, torch
from kdaug.training.distributed import joined
for start in range(30):
    with joined() as world:
        assert world.sum(torch.tensor([world.rank + 1.0])).item() == 3, start
print("met")
"""


@pytest.mark.slow
def test_processes_started_again_on_the_store_of_the_first_start_find_each_other() -> None:
    """As torchrun keeps its store over restarts: the addresses of processes that are gone are still in it."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    }  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MEETING],
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.communicate(timeout=60)[0] for process in processes] == ["met\n", "met\n"]
    finally:
        for process in processes:
            process.kill()


# Without other processes


def key(count: int) -> BatchKey:
    return BatchKey(3, 1, np.arange(100, 100 + count), 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_shares_are_equal_and_together_the_batch(size: int) -> None:
    shares = [DistContext(rank, size).shard(key(12)) for rank in range(size)]
    assert {len(share.indices) for share in shares} == {12 // size}
    np.testing.assert_array_equal(np.concatenate([share.indices for share in shares]), key(12).indices)
    assert {(share.step, share.epoch) for share in shares} == {(3, 1)}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 13, 40])
def test_every_rank_evaluates_as_many_batches_and_no_image_is_counted_twice(count: int, size: int) -> None:
    ranks = [list(evaluation_keys(count, 4, rank, size)) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert max(len(batch.indices) for batches in ranks for batch in batches) <= 4
    seen = np.concatenate([batch.indices for batches in ranks for batch in batches])
    np.testing.assert_array_equal(np.sort(seen), np.arange(count))


def test_alone_what_is_asked_for_is_done_at_once() -> None:
    agreement = SyncFlags(DistContext())
    assert agreement.on(False, True) == [False, True]
    assert agreement.on(False, False) == [False, False]
    assert agreement.settled_on(True, False) == [True, False]


RECIPE = Recipe(optimization=Optimization(global_batch=96))
CPU = torch.device("cpu")


def changed_recipe(changed: Callable[..., Recipe], **settings: Any) -> Recipe:
    return changed(RECIPE, {name.replace("__", "."): value for name, value in settings.items()})


@pytest.mark.parametrize(
    ("settings", "world", "says"),
    [
        (
            {},
            DistContext(0, 5),
            r"global_batch 96 does not divide evenly over 5 processes; the nearest that does is 95",
        ),
        (
            {"run__device_batch": 20},
            DistContext(0, 2),
            r"device_batch 20 does not divide evenly the 48 images of a process",
        ),
        (
            {"run__shard": True},
            DistContext(),
            r"run\.shard spreads a network over several processes; start them with torch",
        ),
        ({"optimization__sync_batch_norm": True}, DistContext(0, 2), r"optimization\.sync_batch_norm needs GPUs"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    changed: Callable[..., Recipe], settings: dict[str, Any], dist: DistContext, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        check_parallel(changed_recipe(changed, **settings), dist, CPU, torch.float32)


@pytest.mark.parametrize(
    ("device_batch", "size", "parts"), [(None, 1, 1), (24, 1, 4), (24, 2, 2), (48, 2, 1), (200, 3, 1)]
)
def test_a_share_is_taken_in_as_few_parts_as_the_device_allows(
    changed: Callable[..., Recipe], device_batch: int | None, size: int, parts: int
) -> None:
    recipe = changed_recipe(changed, run__device_batch=device_batch)
    check_parallel(recipe, DistContext(0, size), CPU, torch.float32)
    assert accumulation_steps(recipe, DistContext(0, size)) == parts


def test_a_network_that_cannot_checkpoint_its_gradients_is_named() -> None:
    recipe = Recipe(run=Run(grad_checkpointing=True))
    with pytest.raises(InputError, match=r"network wide_resnet16_1 cannot do run\.grad_checkpointing"):
        prepare_network(torch.nn.Linear(2, 2), recipe)


def test_batch_norms_that_are_to_see_all_processes_become_such() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    recipe = Recipe(optimization=Optimization(sync_batch_norm=True))
    assert isinstance(prepare_network(network, recipe)[1], torch.nn.SyncBatchNorm)


def test_a_network_alone_is_placed_whole_in_channels_last_memory() -> None:
    network = place_network(torch.nn.Conv2d(3, 4, 3), False, DistContext(), CPU)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_job_started_again_resumes_by_itself(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    assert not is_restarted_job()
    monkeypatch.setenv(name, "1")
    assert is_restarted_job()


def test_only_what_says_that_a_rank_has_gone_is_taken_for_it() -> None:
    gone = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:39184"
    assert is_lost_connection(RuntimeError(gone))
    assert is_lost_connection(torch.distributed.DistBackendError("NCCL communicator was aborted"))
    assert not is_lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x5)"))
