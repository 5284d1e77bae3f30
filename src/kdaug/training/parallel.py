"""Training one network with several processes: replicated (DDP) or sharded (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from kdaug.config import Recipe
from kdaug.errors import InputError
from kdaug.training.adversarial import add_auxiliary_norms
from kdaug.training.distributed import DistContext


def check_parallel(recipe: Recipe, dist: DistContext, device: torch.device, precision: torch.dtype) -> None:
    """Raises InputError if the batch is not divisible, or the processes do not support the recipe's settings."""
    batch, device_batch = recipe.optimization.global_batch, recipe.run.device_batch
    if batch % dist.world_size:
        raise InputError(
            f"optimization.global_batch {batch} is not divisible by the number of processes, {dist.world_size}",
            f"use {max(1, round(batch / dist.world_size)) * dist.world_size}",
        )
    share = batch // dist.world_size
    if device_batch is not None and device_batch < share and share % device_batch:
        raise InputError(
            f"the {share} images of a process (optimization.global_batch {batch} over {dist.world_size}) "
            f"are not divisible by run.device_batch {device_batch}"
        )
    if recipe.run.shard and not dist.is_distributed:
        raise InputError("run.shard needs several processes", "start them with torchrun")
    if recipe.adversary.steps and (recipe.run.shard or recipe.optimization.sync_batch_norm):
        other = "run.shard" if recipe.run.shard else "optimization.sync_batch_norm"
        raise InputError(f"adversary.steps and {other} cannot be combined", "leave one of them out")
    if recipe.run.shard and precision == torch.float16:
        raise InputError("run.shard and optimization.precision float16 cannot be combined", "use bfloat16")
    if recipe.optimization.sync_batch_norm and device.type != "cuda":
        raise InputError("optimization.sync_batch_norm needs GPUs", "torch does not support it on other devices")


def accumulation_steps(recipe: Recipe, dist: DistContext) -> int:
    """How many parts a process splits its share of a batch into, so that no part exceeds run.device_batch."""
    share = recipe.optimization.global_batch // dist.world_size
    return max(1, share // (recipe.run.device_batch or share))


def prepare_network(network: nn.Module, recipe: Recipe) -> nn.Module:
    """`network`, not yet moved or sharded, with the recipe's kind of batch norms and gradient checkpointing."""
    if recipe.optimization.sync_batch_norm:
        network = convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
    if recipe.adversary.steps:
        network = add_auxiliary_norms(network, recipe.student.name)
    if recipe.run.grad_checkpointing:
        enable = getattr(network, "set_grad_checkpointing", None)
        try:
            enable(True)  # type: ignore[misc]
        except (TypeError, AssertionError) as error:  # timm's: "gradient checkpointing not supported"
            raise InputError(
                f"network {recipe.student.name} does not support run.grad_checkpointing ({error})"
            ) from None
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats:
                _RecomputationHook(module)
    return network


class _RecomputationHook:
    """Undoes a batch norm's second update of its statistics, when activations are recomputed in the backward pass."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self._saved: tuple[float | None, Tensor] | None = None
        norm.register_forward_pre_hook(self._before)
        norm.register_forward_hook(self._after, always_call=True)  # checkpointing may end a forward by an exception

    def _before(self, norm: nn.modules.batchnorm._BatchNorm, inputs: tuple[Tensor, ...]) -> None:
        if torch._C._current_graph_task_id() != -1:  # in a backward pass, as torch.utils.checkpoint itself asks
            assert norm.num_batches_tracked is not None
            self._saved = norm.momentum, norm.num_batches_tracked.clone()
            norm.momentum = 0.0

    def _after(self, norm: nn.modules.batchnorm._BatchNorm, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if self._saved is not None and norm.num_batches_tracked is not None:
            norm.momentum = self._saved[0]
            norm.num_batches_tracked.copy_(self._saved[1])
            self._saved = None


def place_network(network: nn.Module, shard: bool, dist: DistContext, device: torch.device) -> nn.Module:
    """The network on `device`, channels-last; with `shard`, only this rank's shard of its parameters."""
    if not shard:
        return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
    mesh = init_device_mesh(device.type, (dist.world_size,))
    for block in _blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)
    return network


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The units of sharding: the modules within the network's innermost nn.Sequential or nn.ModuleList."""
    for child in network.children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            if any(isinstance(part, nn.Sequential | nn.ModuleList) for part in child):
                yield from _blocks(child)
            else:
                yield from (part for part in child if next(part.parameters(), None) is not None)


def wrap_ddp(network: nn.Module, example: Tensor, dist: DistContext) -> nn.Module:
    """DDP around `network`, or `network` itself if there are no gradients to average. example: an input of a step."""
    if not dist.is_distributed or isinstance(network, FSDPModule):
        return network
    on_gpu = example.device.type == "cuda"
    replica = DistributedDataParallel(network, device_ids=[example.device] if on_gpu else None)
    _order_buckets(replica, example)
    return replica


def _order_buckets(replica: DistributedDataParallel, example: Tensor) -> None:
    """Runs one backward pass, after which DDP orders its gradient buckets, before training starts or resumes.

    Otherwise a resumed run would take its first step with the initial order of buckets, and would add the gradients of
    three or more ranks in another order than the original run. The pass leaves no other trace.
    """
    before = {name: value.clone() for name, value in replica.module.state_dict().items()}
    with torch.random.fork_rng(devices=[example.device] if example.device.type == "cuda" else []):
        replica.train()(example).sum().backward()  # type: ignore[no-untyped-call]
    replica.zero_grad(set_to_none=True)
    replica.module.load_state_dict(before)


@contextmanager
def gradient_sync(network: nn.Module, now: bool) -> Iterator[None]:
    """Around forward and backward: whether gradients are averaged over the ranks `now`, or only accumulated locally."""
    if isinstance(network, FSDPModule):
        network.set_requires_gradient_sync(now)
    if isinstance(network, DistributedDataParallel) and not now:
        with network.no_sync():
            yield
    else:
        yield
