"""The contenders: kdaug, plain Pillow, and the peers."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

import kdaug
from harness.contenders import Contender
from kdaug.views.plan import RESAMPLES, Resample, Size
from views_benchmark import dali, peers
from views_benchmark.peers import Run, ViewWorkload

POLICY = "randaugment-n2-m9@torchvision"
"""torchvision's RandAugment: the same fourteen ops (one of them does nothing) with the same arguments."""

_PILLOW_VIEWS = Path(__file__).parents[2] / "tests" / "parity" / "pillow_views.py"


@dataclass(frozen=True)
class FilteredPolicy:
    """A policy with another filter than that of its space. A policy specification cannot set the filter."""

    policy: kdaug.Policy
    filter: Resample

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> kdaug.ViewPlan:
        plan = self.policy.plan(seed, epoch, indices, size)
        return replace(plan, resample=np.full_like(plan.resample, RESAMPLES.index(self.filter)))


def policy_with(filter: Resample) -> kdaug.Policy:
    policy = kdaug.create_policy(POLICY)
    return policy if filter == "nearest" else FilteredPolicy(policy, filter)


def kdaug_batch(threads: int) -> Callable[[ViewWorkload], Run]:
    def make(workload: ViewWorkload) -> Run:
        policy, epochs = policy_with(workload.filter), itertools.count()
        indices, size = np.arange(len(workload.images)), workload.images.shape[1:3]
        return lambda: kdaug.apply(workload.images, policy.plan(0, next(epochs), indices, size), threads=threads)

    return make


def kdaug_one_by_one(workload: ViewWorkload) -> Run:
    transform = kdaug.ViewTransform(policy_with(workload.filter))
    photos = [Image.fromarray(image) for image in workload.images]
    return lambda: [transform(image) for image in photos]


def plain_pillow(workload: ViewWorkload) -> Run:
    policy, epochs, view_of = policy_with(workload.filter), itertools.count(), pillow_views().view_of
    indices, size = np.arange(len(workload.images)), workload.images.shape[1:3]

    def run() -> list[object]:
        plan = policy.plan(0, next(epochs), indices, size)
        return [view_of(image, plan, row) for row, image in enumerate(workload.images)]

    return run


@cache
def pillow_views() -> ModuleType:
    """The test module that implements every op with Pillow."""
    spec = importlib.util.spec_from_file_location("pillow_views", _PILLOW_VIEWS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTENDERS: tuple[Contender[ViewWorkload, Run], ...] = (
    Contender(
        "ours",
        "kdaug, 1 thread",
        "Plans and applies a whole batch; the bytes equal Pillow's. For bilinear the filter is replaced in the plan, "
        "because the space uses nearest.",
        kdaug_batch(1),
    ),
    Contender("ours-2", "kdaug, 2 threads", "The same bytes from two threads.", kdaug_batch(2)),
    Contender("ours-pil", "kdaug, PIL to PIL", "ViewTransform on one PIL image at a time, 1 thread.", kdaug_one_by_one),
    Contender(
        "pillow",
        "Pillow",
        "kdaug's plans applied with Pillow image by image, from arrays to arrays.",
        plain_pillow,
    ),
    Contender(
        "torchvision",
        "torchvision v1, PIL",
        "The reference: transforms.RandAugment on one PIL image at a time; the same ops and arguments as kdaug.",
        peers.torchvision_v1,
    ),
    Contender(
        "torchvision-v2-pil",
        "torchvision v2, PIL",
        "transforms.v2.RandAugment on one PIL image at a time; the same ops and arguments.",
        peers.torchvision_v2_on_pillow,
    ),
    Contender(
        "torchvision-v2-tensor",
        "torchvision v2, tensor",
        "transforms.v2.RandAugment on one uint8 tensor [C,H,W] at a time; its kernels do not give Pillow's bytes.",
        peers.torchvision_v2_on_tensors,
    ),
    Contender(
        "timm",
        "timm, PIL",
        "rand-m9-n2-p1 with one filter and the same ops except identity. Its M=9 is about three times as strong, and "
        "it fills with gray.",
        peers.timm_on_pillow,
    ),
    Contender(
        "kornia",
        "kornia, float batch",
        "A whole float32 batch. It draws both ops once per batch (without replacement) and the signs per image; the "
        "same ops except identity. Made for GPUs.",
        peers.kornia_on_a_batch,
    ),
    Contender(
        "albumentationsx",
        "AlbumentationsX, array",
        "Has no RandAugment. SomeOf applies two of the fourteen most similar transforms, with arguments drawn "
        "uniformly up to torchvision's at M=9. Its sharpening differs, and it computes with OpenCV.",
        peers.albumentationsx_on_arrays,
    ),
    Contender("dali", "DALI on the CPU, 1 thread", dali.DIFFERENCES, dali.dali_on_cpu(threads=1)),
    Contender(
        "dali-all",
        "DALI on the CPU, all cores",
        "The same pipeline with one thread per core.",
        dali.dali_on_cpu(threads=None),
    ),
)
