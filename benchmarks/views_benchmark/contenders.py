"""Who is measured: ours, plain Pillow, and the peers."""

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
from kdaug.views.plan import RESAMPLES, Resample, Size
from views_benchmark import peers
from views_benchmark.peers import Run, Work

POLICY = "randaugment-n2-m9@torchvision"
"""torchvision's RandAugment: the same fourteen ops (one of them does nothing) with the same arguments."""

_ORACLE = Path(__file__).parents[2] / "tests" / "parity" / "pillow_views.py"


@dataclass(frozen=True)
class Contender:
    """`make` prepares the images in the form it wants, and returns what makes all their views once.

    ImportError from it says that what it needs is not installed.
    """

    name: str
    label: str
    differs: str
    make: Callable[[Work], Run]


@dataclass(frozen=True)
class Filtered:
    """A policy with another filter than its space's, which the specification does not let one choose."""

    policy: kdaug.Policy
    filter: Resample

    def plan(self, seed: int, epoch: int, indices: ArrayLike, size: Size) -> kdaug.ViewPlan:
        plan = self.policy.plan(seed, epoch, indices, size)
        return replace(plan, resample=np.full_like(plan.resample, RESAMPLES.index(self.filter)))


def policy_with(filter: Resample) -> kdaug.Policy:
    policy = kdaug.create_policy(POLICY)
    return policy if filter == "nearest" else Filtered(policy, filter)


def ours(threads: int) -> Callable[[Work], Run]:
    def make(work: Work) -> Run:
        policy, epochs = policy_with(work.filter), itertools.count()
        indices, size = np.arange(len(work.images)), work.images.shape[1:3]
        return lambda: kdaug.apply(work.images, policy.plan(0, next(epochs), indices, size), threads=threads)

    return make


def ours_one_by_one(work: Work) -> Run:
    transform = kdaug.ViewTransform(policy_with(work.filter))
    opened = [Image.fromarray(image) for image in work.images]
    return lambda: [transform(image) for image in opened]


def plain_pillow(work: Work) -> Run:
    policy, epochs, view_of = policy_with(work.filter), itertools.count(), pillow_views().view_of
    indices, size = np.arange(len(work.images)), work.images.shape[1:3]

    def run() -> list[object]:
        plan = policy.plan(0, next(epochs), indices, size)
        return [view_of(image, plan, row) for row, image in enumerate(work.images)]

    return run


@cache
def pillow_views() -> ModuleType:
    """The module of the tests that says with Pillow what every op does."""
    spec = importlib.util.spec_from_file_location("pillow_views", _ORACLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTENDERS = (
    Contender(
        "ours",
        "kdaug, 1 thread",
        "A whole batch, drawing included; Pillow's bytes. Bilinear by replacing the filter in the plan, since the "
        "space says nearest.",
        ours(1),
    ),
    Contender("ours-2", "kdaug, 2 threads", "The same bytes from two threads.", ours(2)),
    Contender("ours-pil", "kdaug, PIL to PIL", "ViewTransform: one PIL image in, one out, 1 thread.", ours_one_by_one),
    Contender(
        "pillow",
        "Pillow itself",
        "kdaug's plans carried out with Pillow image by image, from and to arrays; no work but Pillow's and that.",
        plain_pillow,
    ),
    Contender(
        "torchvision",
        "torchvision v1, PIL",
        "The reference: transforms.RandAugment, one PIL image in, one out; the same ops and arguments as ours.",
        peers.torchvision_v1,
    ),
    Contender(
        "torchvision-v2-pil",
        "torchvision v2, PIL",
        "transforms.v2.RandAugment, one PIL image in, one out; the same ops and arguments.",
        peers.torchvision_v2_on_pillow,
    ),
    Contender(
        "torchvision-v2-tensor",
        "torchvision v2, tensor",
        "The same on uint8 tensors [C,H,W], one by one: its own kernels, whose bytes are not Pillow's.",
        peers.torchvision_v2_on_tensors,
    ),
    Contender(
        "timm",
        "timm, PIL",
        "rand-m9-n2-p1 with one filter and the same ops but the one that does nothing; its M=9 is about three times as "
        "strong, and its fill is grey.",
        peers.timm_on_pillow,
    ),
    Contender(
        "kornia",
        "kornia, float batch",
        "A whole batch of float32 in floating point; both ops are drawn once per batch (without replacement), their "
        "signs per image; the same ops but the one that does nothing; made for GPUs.",
        peers.kornia_on_a_batch,
    ),
    Contender(
        "albumentationsx",
        "AlbumentationsX, array",
        "Has no RandAugment: SomeOf two of the nearest fourteen transforms, with arguments drawn uniformly up to "
        "torchvision's at M=9, and a sharpening of its own; OpenCV's arithmetic.",
        peers.albumentationsx_on_arrays,
    ),
)
