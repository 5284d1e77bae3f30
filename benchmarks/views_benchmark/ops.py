"""One op at a time: ours against plain Pillow, and against what merely copying the image takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import kdaug
from kdaug.views.ops import CODES
from kdaug.views.plan import ViewPlan, blank
from kdaug.views.spaces import get_space
from views_benchmark.contenders import pillow_views
from views_benchmark.photos import Photos
from views_benchmark.report import Copying, OpTiming
from views_benchmark.rounds import Task, spread_of, take_turns


def op_timings(
    photos: Photos, rounds: int, seconds: float, progress: Callable[[int], None]
) -> tuple[Copying, list[OpTiming]]:
    """Every op on `photos`, in about `seconds`, and the copying that is their floor."""
    plans = _plans(photos)
    target = np.empty_like(photos.images)
    tasks = [Task(lambda: np.copyto(target, photos.images), len(photos.images))]
    for plan in plans.values():
        tasks += [_ours(photos, plan), _pillow(photos, plan)]
    copied, *taken = take_turns(tasks, rounds, seconds / (rounds * len(tasks)), progress)
    moved = 2 * photos.images[0].nbytes
    copying = Copying(photos.size, moved, spread_of([moved / microseconds / 1e3 for microseconds in copied.rounds]))
    timings = [
        OpTiming(op, photos.size, ours, pillow, copied.median, round(ours.median / copied.median, 2))
        for op, ours, pillow in zip(plans, taken[::2], taken[1::2], strict=True)
    ]
    return copying, timings


def _ours(photos: Photos, plan: ViewPlan) -> Task:
    return Task(lambda: kdaug.apply(photos.images, plan, threads=1), len(plan))


def _pillow(photos: Photos, plan: ViewPlan) -> Task:
    view_of = pillow_views().view_of
    return Task(lambda: [view_of(image, plan, row) for row, image in enumerate(photos.images)], len(plan))


def _plans(photos: Photos) -> dict[str, ViewPlan]:
    """A plan per op: those of torchvision's space at magnitude 9 with sign +, then the others there are."""
    count, size = len(photos.images), (photos.size, photos.size)
    space = get_space("torchvision")
    positions = np.arange(len(space.ops))
    arguments = space.arguments(positions, np.full(len(positions), 9.0), np.ones(len(positions)), size)
    plans = {}
    for name, argument in zip(space.ops, arguments, strict=True):
        empty = blank(count, 1, size)
        plans[name] = replace(empty, op=np.full_like(empty.op, CODES[name]), argument=np.tile(argument, (count, 1, 1)))
    half = photos.size // 2
    others: list[tuple[Any, ...]] = [
        ("invert",),
        ("solarize-add", 110.0),
        ("cutout", (half // 2, half // 2, half)),
        ("flip",),
        ("crop", (-4, 4, photos.size, photos.size)),
    ]
    return plans | {op[0]: kdaug.plan_of([[op]] * count, size) for op in others}
