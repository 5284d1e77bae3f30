"""The processes that train together: started by torchrun, one per device; or this process alone."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from uuid import uuid4

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from kdaug.data.loader import BatchKey
from kdaug.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class DistContext:
    """This process has rank `rank` of `world_size`, and rank `local_rank` of `local_world_size` on its machine.

    Methods that communicate must be called by all ranks in the same order. They do nothing if not is_distributed.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    is_distributed: bool = False

    @property
    def is_rank0(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def shard(self, key: BatchKey) -> BatchKey:
        """This rank's share of a batch: one of `world_size` equal parts."""
        share = len(key.indices) // self.world_size
        return replace(key, indices=key.indices[self.rank * share : (self.rank + 1) * share])

    def sum(self, values: Tensor) -> Tensor:
        """The element-wise sum over all ranks; `values` are in main memory or on the rank's device."""
        if self.is_distributed:
            values = values.clone()
            torch_dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of ranks."""
        if not self.is_distributed:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch_dist.all_gather_object(values, value)
        return values

    def run_on_rank0(self, function: Callable[[], T]) -> T:
        """Calls `function` on rank 0 only and returns its result on all ranks. If it raises, all ranks raise."""
        if not self.is_distributed:
            return function()
        result: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_rank0:
            try:
                result[0] = function()
            except Exception as raised:
                args = raised.args if isinstance(raised, InputError) else (str(raised),)
                error, result = raised, [None, args]
        torch_dist.broadcast_object_list(result, device=torch.device("cpu"))
        if error is not None:
            raise error
        if result[1] is not None:
            raise InputError(*result[1])
        returned: T = result[0]
        return returned

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Copies the buffers (batch-norm's running statistics) of rank 0 to all ranks."""
        if self.is_distributed:
            for buffer in network.buffers():
                torch_dist.broadcast(buffer, 0)


SINGLE_PROCESS = DistContext()


@contextmanager
def distributed_context() -> Iterator[DistContext]:
    """Joins the processes that torchrun started, and leaves them at the end. Without torchrun, this process alone."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield DistContext()
        return
    needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise InputError(f"RANK is set, but not {' and '.join(missing)}", "start kdaug with torchrun, which sets all")
    rank, world_size, local_rank, local_world_size = (int(os.environ[name]) for name in needed)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch_dist.init_process_group(backend, store=_new_store(rank, world_size), rank=rank, world_size=world_size)
    try:
        yield DistContext(rank, world_size, local_rank, local_world_size, is_distributed=True)
    finally:
        torch_dist.destroy_process_group()


def _new_store(rank: int, world_size: int) -> Store:
    """torchrun's key-value store, under a prefix that no earlier start of this job has used.

    torchrun keeps its store when it restarts the processes, and gloo would wait forever for the processes whose
    addresses are still in it. Rank 0 chooses the prefix. Each other rank asks for it under a new name, so that an
    answer to a rank of an earlier start is not taken for it.
    """
    store, _, _ = next(iter(rendezvous("env://")))
    if rank == 0:
        prefix = uuid4().hex
        _send_prefix(prefix, store, world_size)
    else:
        request = uuid4().hex
        store.set(f"kdaug/request/{rank}", request)
        prefix = store.get(f"kdaug/prefix/{request}").decode()
        store.set(f"kdaug/received/{prefix}/{rank}", b"")
    return PrefixStore(prefix, store)


def _send_prefix(prefix: str, store: Store, world_size: int) -> None:
    """Answers requests until all ranks have the prefix. Requests of an earlier start are answered too, unread."""
    waiting = set(range(1, world_size))
    while waiting:
        for rank in sorted(waiting):
            if store.check([f"kdaug/request/{rank}"]):
                store.set(f"kdaug/prefix/{store.get(f'kdaug/request/{rank}').decode()}", prefix)
            if store.check([f"kdaug/received/{prefix}/{rank}"]):
                waiting.remove(rank)
        time.sleep(0.01)


def is_restarted_job() -> bool:
    """Whether torchrun (--max-restarts) or SLURM (requeue) has started this job again after a failure."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether `error` means that another rank has ended."""
    connection = re.search(r"gloo|NCCL|[Cc]onnection (closed|reset)", str(error))
    return isinstance(error, torch_dist.DistError) or connection is not None


class SyncFlags:
    """Flags (stop, save a checkpoint) that any rank may raise and all ranks act on after the same step.

    The flags are exchanged while the next step runs, so with several ranks they take effect one step later.
    """

    def __init__(self, dist: DistContext) -> None:
        self._dist = dist
        self._flags = torch.zeros(0)
        self._exchange: torch_dist.Work | None = None

    def sync(self, *flags: bool) -> list[bool]:
        """Sends this rank's `flags` and returns those that all ranks act on now, the same on every rank."""
        if not self._dist.is_distributed:
            return list(flags)
        agreed = self._receive(len(flags))
        self._flags = torch.tensor(flags, dtype=torch.uint8)
        self._exchange = torch_dist.all_reduce(self._flags, torch_dist.ReduceOp.MAX, async_op=True)
        return agreed

    def wait(self) -> None:
        """Ends the exchange in progress, if any."""
        self._receive(len(self._flags))

    def _receive(self, count: int) -> list[bool]:
        if self._exchange is not None:
            self._exchange.wait()
            self._exchange = None
        elif not len(self._flags):
            return [False] * count
        return [bool(flag) for flag in self._flags.tolist()]
