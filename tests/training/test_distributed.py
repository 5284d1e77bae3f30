"""Several processes train as one: the same views in the same order, the same metrics, resumed bit for bit."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.ranks import TIMEOUT, batches_in, exchange_flags, meet_repeatedly, start_ranks, train_rank
from support.recipes import with_settings
from support.runs import losses, read_lines, step_numbers, weight_bytes, without_seconds

from kdaug import InputError
from kdaug.config import Optimization, Recipe, Run
from kdaug.data.loader import BatchKey, evaluation_keys
from kdaug.inference import evaluate_run
from kdaug.training.distributed import DistContext, SyncFlags, is_lost_connection, is_restarted_job
from kdaug.training.parallel import accumulation_steps, check_parallel, place_network, prepare_network

SETTINGS = {"optimization.global_batch": 48, "data.train_images": 240, "run.checkpoint_steps": 1}
CONVNET = {**SETTINGS, "student.name": "small_convnet", "optimization.ema_decay": 0.9, "run.resume": True}
"""A network with batch norms and dropout, and a moving average of its weights."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A softmax regression without dropout, trained by one and by three processes in run-1 and run-3; their batches in
    batches-1 and batches-3."""
    folder = tmp_path_factory.mktemp("ranks")
    train_rank({**SETTINGS, "run.dir": str(folder / "run-1")}, folder / "batches-1")
    settings = {**SETTINGS, "run.dir": str(folder / "run-3")}
    assert start_ranks(3, train_rank, settings, folder / "batches-3").wait() == [0, 0, 0]
    return folder


@pytest.fixture(scope="module")
def convnet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CONVNET trained by three processes, never stopped."""
    run = tmp_path_factory.mktemp("convnet") / "run"
    assert start_ranks(3, train_rank, {**CONVNET, "run.dir": str(run)}).wait() == [0, 0, 0]
    return run


def test_three_ranks_share_the_views_of_one(folder: Path) -> None:
    alone, ranks = batches_in(folder / "batches-1"), [batches_in(folder / "batches-3", rank) for rank in range(3)]
    assert len(alone) == 10
    for step, whole in enumerate(alone):
        for name in ("indices", "labels", "views"):
            shares = [rank[step][name] for rank in ranks]
            assert [len(share) for share in shares] == [16, 16, 16]
            assert [item for share in shares for item in share] == whole[name]


def test_three_ranks_learn_and_score_as_one_up_to_rounding(folder: Path) -> None:
    alone, ranks = folder / "run-1", folder / "run-3"
    assert losses(ranks) == pytest.approx(losses(alone), rel=1e-5)
    weights = [safetensors.torch.load_file(run / "last.safetensors") for run in (alone, ranks)]
    for name in weights[0]:
        torch.testing.assert_close(weights[0][name], weights[1][name], rtol=1e-4, atol=1e-6)
    for one, other in zip(read_lines(alone, "eval"), read_lines(ranks, "eval"), strict=True):
        assert other["images"] == one["images"] == 2000
        assert other["top1_error"] == pytest.approx(one["top1_error"], abs=0.11)  # two images with tied logits
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)
    assert json.loads((ranks / "environment.json").read_text())["processes"] == 3


def test_ranks_evaluate_with_the_batch_norms_of_rank_0(convnet_run: Path) -> None:
    """Each rank's running statistics differ, as each has its own batches. Rank 0 saves the weights."""
    end, scores = read_lines(convnet_run)[-1], evaluate_run(convnet_run, "last", None, "cpu", None)
    assert end["val_loss"] == pytest.approx(scores.val_loss, rel=5e-6)


def test_ranks_stop_together_and_resume_bit_for_bit(convnet_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {**CONVNET, "run.dir": str(run)}
    ranks = start_ranks(3, train_rank, settings)
    deadline = time.monotonic() + TIMEOUT
    while not list((run / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(ranks.processes[1].pid, signal.SIGTERM)  # one rank is enough to stop all
    assert ranks.wait() == [130, 130, 130]
    reached = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert reached < 10
    assert step_numbers(run) == list(range(1, reached + 1))

    assert start_ranks(3, train_rank, settings, tmp_path / "batches").wait() == [0, 0, 0]
    assert len(batches_in(tmp_path / "batches")) == 10 - reached
    assert weight_bytes(run) == weight_bytes(convnet_run)
    assert without_seconds(read_lines(run)) == without_seconds(read_lines(convnet_run))


def test_every_rank_has_its_own_generator_in_the_checkpoint(convnet_run: Path) -> None:
    checkpoint = max((convnet_run / "checkpoints").iterdir())
    generators = torch.load(checkpoint / "state.pt", weights_only=True)["generators"]
    assert len({states["cpu"].numpy().tobytes() for states in generators}) == 3


def test_flags_of_a_rank_reach_all_ranks(tmp_path: Path) -> None:
    """With the next exchange, but the last one at once."""
    assert start_ranks(2, exchange_flags, tmp_path).wait() == [0, 0]
    for rank in (0, 1):
        flags = json.loads((tmp_path / f"{rank}.json").read_text())
        assert flags == [[False, False], [True, False], [False, False], [False, True]]


@pytest.mark.slow
def test_sharded_training_equals_replicated_training(tmp_path: Path) -> None:
    """FSDP2 against DDP on two processes; then one process alone finishes from a sharded run's checkpoint."""
    settings = {**SETTINGS, "optimization.ema_decay": 0.9, "optimization.optimizer": "adamw"}
    replicated, sharded = tmp_path / "replicated", tmp_path / "sharded"
    assert start_ranks(2, train_rank, {**settings, "run.dir": str(replicated)}).wait() == [0, 0]
    assert start_ranks(2, train_rank, {**settings, "run.dir": str(sharded), "run.shard": True}).wait() == [0, 0]
    files = [safetensors.torch.load_file(run / "last.safetensors") for run in (replicated, sharded)]
    assert files[0].keys() == files[1].keys()
    for name in files[0]:
        torch.testing.assert_close(files[0][name], files[1][name], rtol=1e-4, atol=1e-6)
    checkpoints = [max((run / "checkpoints").iterdir()) for run in (replicated, sharded)]
    assert len({tuple(sorted(p.name for p in checkpoint.iterdir())) for checkpoint in checkpoints}) == 1
    assert losses(sharded) == pytest.approx(losses(replicated), rel=1e-5)

    (sharded / "last.safetensors").unlink()
    newest = max((sharded / "checkpoints").iterdir())
    for file in newest.iterdir():
        file.unlink()
    newest.rmdir()
    train_rank({**settings, "run.dir": str(sharded), "run.resume": True}, tmp_path / "batches")
    assert len(batches_in(tmp_path / "batches")) == 1
    last = safetensors.torch.load_file(sharded / "last.safetensors")
    for name in last:
        torch.testing.assert_close(last[name], files[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_restarted_ranks_meet_on_the_store_of_the_first_start() -> None:
    """torchrun keeps its store over restarts: it still has the addresses of processes that have ended."""
    store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    environment = {"MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert start_ranks(2, meet_repeatedly, environment=environment).wait() == [0, 0]


# In one process


def key(count: int) -> BatchKey:
    return BatchKey(3, 1, np.arange(100, 100 + count), 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6])
def test_shares_are_equal_parts_of_the_batch(size: int) -> None:
    shares = [DistContext(rank, size).shard(key(12)) for rank in range(size)]
    assert {len(share.indices) for share in shares} == {12 // size}
    np.testing.assert_array_equal(np.concatenate([share.indices for share in shares]), key(12).indices)
    assert {(share.step, share.epoch) for share in shares} == {(3, 1)}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 2, 13, 40])
def test_ranks_evaluate_every_image_once_in_equally_many_batches(count: int, size: int) -> None:
    ranks = [list(evaluation_keys(count, 4, rank, size)) for rank in range(size)]
    assert len({len(batches) for batches in ranks}) == 1
    assert max(len(batch.indices) for batches in ranks for batch in batches) <= 4
    evaluated = np.concatenate([batch.indices for batches in ranks for batch in batches])
    np.testing.assert_array_equal(np.sort(evaluated), np.arange(count))


def test_flags_of_a_single_process_take_effect_at_once() -> None:
    flags = SyncFlags(DistContext())
    assert flags.sync(False, True) == [False, True]
    assert flags.sync(False, False) == [False, False]
    flags.wait()
    assert flags.sync(True, False) == [True, False]


RECIPE = Recipe(optimization=Optimization(global_batch=96))
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("settings", "dist", "message"),
    [
        (
            {},
            DistContext(0, 5),
            r"global_batch 96 is not divisible by the number of processes, 5; use 95",
        ),
        (
            {"run.device_batch": 20},
            DistContext(0, 2),
            r"the 48 images of a process .* are not divisible by run.device_batch 20",
        ),
        ({"run.shard": True}, DistContext(), r"run\.shard needs several processes; start them with torchrun"),
        ({"optimization.sync_batch_norm": True}, DistContext(0, 2), r"optimization\.sync_batch_norm needs GPUs"),
    ],
)
def test_settings_that_ranks_cannot_share_are_refused(
    settings: dict[str, Any], dist: DistContext, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_parallel(with_settings(RECIPE, settings), dist, CPU, torch.float32)


@pytest.mark.parametrize(
    ("device_batch", "size", "parts"), [(None, 1, 1), (24, 1, 4), (24, 2, 2), (48, 2, 1), (200, 3, 1)]
)
def test_a_share_is_split_into_as_few_parts_as_possible(device_batch: int | None, size: int, parts: int) -> None:
    recipe = with_settings(RECIPE, {"run.device_batch": device_batch})
    check_parallel(recipe, DistContext(0, size), CPU, torch.float32)
    assert accumulation_steps(recipe, DistContext(0, size)) == parts


def test_a_network_without_grad_checkpointing_is_refused() -> None:
    recipe = Recipe(run=Run(grad_checkpointing=True))
    with pytest.raises(InputError, match=r"network wide_resnet16_1 does not support run\.grad_checkpointing"):
        prepare_network(torch.nn.Linear(2, 2), recipe)


def test_sync_batch_norm_replaces_the_batch_norms() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    recipe = Recipe(optimization=Optimization(sync_batch_norm=True))
    assert isinstance(prepare_network(network, recipe)[1], torch.nn.SyncBatchNorm)


def test_a_network_is_placed_in_channels_last_memory() -> None:
    network = place_network(torch.nn.Conv2d(3, 4, 3), False, DistContext(), CPU)
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"])
def test_a_restarted_job_is_recognized(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "0")
    assert not is_restarted_job()
    monkeypatch.setenv(name, "1")
    assert is_restarted_job()


def test_only_errors_of_a_lost_rank_count_as_lost_connection() -> None:
    lost = "[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:39184"
    assert is_lost_connection(RuntimeError(lost))
    assert is_lost_connection(torch.distributed.DistBackendError("NCCL communicator was aborted"))
    assert not is_lost_connection(RuntimeError("mat1 and mat2 shapes cannot be multiplied (4x3 and 2x5)"))
