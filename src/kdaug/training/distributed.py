"""The processes that train together: started by torchrun, one for each device; or this one alone."""

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
    """This process is the `rank`-th of `size`, on its machine the `local_rank`-th of `local_size`.

    Whatever communicates must be called by all ranks, in the same order. Alone (size 1, no process group) nothing does.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    is_distributed: bool = False

    @property
    def is_rank0(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def shard(self, key: BatchKey) -> BatchKey:
        """The part of a batch that falls to this rank: the `rank`-th of `size` equal pieces."""
        share = len(key.indices) // self.size
        return replace(key, indices=key.indices[self.rank * share : (self.rank + 1) * share])

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, element by element; `values` lie in main memory or on the rank's device."""
        if self.is_distributed:
            values = values.clone()
            torch_dist.all_reduce(values)
        return values

    def gather(self, value: T) -> list[T]:
        """What every rank has to say, in the order of ranks."""
        if not self.is_distributed:
            return [value]
        values: list[Any] = [None] * self.size
        torch_dist.all_gather_object(values, value)
        return values

    def run_on_rank0(self, find: Callable[[], T]) -> T:
        """What `find` returns on the first rank, where alone it is called. If it fails there, all ranks stop."""
        if not self.is_distributed:
            return find()
        found: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_rank0:
            try:
                found[0] = find()
            except Exception as raised:
                error, found = raised, [None, str(raised)]
        torch_dist.broadcast_object_list(found, device=torch.device("cpu"))
        if error is not None:
            raise error
        if found[1] is not None:
            raise InputError(found[1])
        told: T = found[0]
        return told

    def broadcast_buffers(self, network: nn.Module) -> None:
        """Gives every rank the buffers (batch-norm's running statistics) of the first, by which networks are judged."""
        if self.is_distributed:
            for buffer in network.buffers():
                torch_dist.broadcast(buffer, 0)


@contextmanager
def distributed_context() -> Iterator[DistContext]:
    """The world that torchrun started this process in, left at the end; without torchrun, this process alone."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield DistContext()
        return
    needed = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise InputError(
            f"RANK is set, but not {' and '.join(missing)}; start kdaug with torchrun, which sets them all"
        )
    rank, size, local_rank, local_size = (int(os.environ[name]) for name in needed)
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch_dist.init_process_group(backend, store=_fresh_store(rank, size), rank=rank, world_size=size)
    try:
        yield DistContext(rank, size, local_rank, local_size, is_distributed=True)
    finally:
        torch_dist.destroy_process_group()


def _fresh_store(rank: int, size: int) -> Store:
    """The store in which torchrun's processes find each other, under a prefix that no earlier start has used.

    torchrun keeps the store when it starts its processes again, and gloo would wait for ever for those whose addresses
    are left there. The first rank makes up the prefix; every other asks for it under a name that is new as well, so
    that no answer to an earlier asking can be taken for it.
    """
    store, _, _ = next(iter(rendezvous("env://")))
    if rank == 0:
        prefix = uuid4().hex
        _hand_out(prefix, store, size)
    else:
        asking = uuid4().hex
        store.set(f"kdaug/asking/{rank}", asking)
        prefix = store.get(f"kdaug/answer/{asking}").decode()
        store.set(f"kdaug/knows/{prefix}/{rank}", b"")
    return PrefixStore(prefix, store)


def _hand_out(prefix: str, store: Store, size: int) -> None:
    """Answers whoever asks, until all know: who asked in an earlier start, too, which nobody hears."""
    unaware = set(range(1, size))
    while unaware:
        for rank in sorted(unaware):
            if store.check([f"kdaug/asking/{rank}"]):
                store.set(f"kdaug/answer/{store.get(f'kdaug/asking/{rank}').decode()}", prefix)
            if store.check([f"kdaug/knows/{prefix}/{rank}"]):
                unaware.remove(rank)
        time.sleep(0.01)


def is_restarted_job() -> bool:
    """Whether torchrun (--max-restarts) or SLURM (requeue) has started this job again after a failure."""
    return any(int(os.environ.get(name, 0)) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether `error` says that another rank has gone."""
    return isinstance(error, torch_dist.DistError) or bool(
        re.search(r"gloo|NCCL|[Cc]onnection (closed|reset)", str(error))
    )


class SyncFlags:
    """What one rank asks for (to stop, to write a checkpoint), all do, after the same step.

    The word goes round while the next step is computed, so what is asked in a world of several is done one step later.
    """

    def __init__(self, dist: DistContext) -> None:
        self._dist = dist
        self._asked = torch.zeros(0)
        self._under_way: torch_dist.Work | None = None

    def on(self, *asked: bool) -> list[bool]:
        """Which of the things that were asked for are to be done now; the same answer on every rank."""
        if not self._dist.is_distributed:
            return list(asked)
        agreed = self._arrived(len(asked))
        self._asked = torch.tensor(asked, dtype=torch.uint8)
        self._under_way = torch_dist.all_reduce(self._asked, torch_dist.ReduceOp.MAX, async_op=True)
        return agreed

    def settled_on(self, *asked: bool) -> list[bool]:
        """As `on`, for the last time: nothing that was asked for is left over."""
        earlier, last = self.on(*asked), self._arrived(len(asked))
        return [one or other for one, other in zip(earlier, last, strict=True)]

    def _arrived(self, count: int) -> list[bool]:
        if self._under_way is None:
            return [bool(flag) for flag in self._asked.tolist()] or [False] * count
        self._under_way.wait()
        self._under_way = None
        return [bool(flag) for flag in self._asked.tolist()]
