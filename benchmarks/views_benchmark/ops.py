"""The time of each op, in kdaug and in Pillow, and of a plain copy of the image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

import kdaug
from harness.rounds import ImageTask, spread_of, time_images
from kdaug.views.ops import CODES
from kdaug.views.plan import ViewPlan, empty_plan
from kdaug.views.space_tables import get_space
from views_benchmark.contenders import pillow_views
from views_benchmark.photos import Photos
from views_benchmark.report import Copying, OpTiming


def measure_ops(photos: Photos, rounds: int, seconds: float) -> tuple[Copying, list[OpTiming]]:
    """Measures copying and every op on `photos`, in about `seconds`."""
    plans = _plans(photos)
    target = np.empty_like(photos.images)
    tasks = [ImageTask(lambda: np.copyto(target, photos.images), len(photos.images))]
    for plan in plans.values():
        tasks += [_kdaug_task(photos, plan), _pillow_task(photos, plan)]
    copied, *times = time_images(tasks, rounds, seconds / (rounds * len(tasks)), f"{photos.size} px, single ops, ")
    moved = 2 * photos.images[0].nbytes
    copying = Copying(photos.size, moved, spread_of([moved / microseconds / 1e3 for microseconds in copied.rounds]))
    timings = [
        OpTiming(op, photos.size, ours, pillow, copied.median, round(ours.median / copied.median, 2))
        for op, ours, pillow in zip(plans, times[::2], times[1::2], strict=True)
    ]
    return copying, timings


def _kdaug_task(photos: Photos, plan: ViewPlan) -> ImageTask:
    return ImageTask(lambda: kdaug.apply(photos.images, plan, threads=1), len(plan))


def _pillow_task(photos: Photos, plan: ViewPlan) -> ImageTask:
    view_of = pillow_views().view_of
    return ImageTask(lambda: [view_of(image, plan, row) for row, image in enumerate(photos.images)], len(plan))


def _plans(photos: Photos) -> dict[str, ViewPlan]:
    """One plan per op: the ops of torchvision's space at magnitude 9 with sign +, then the other ops."""
    count, size = len(photos.images), (photos.size, photos.size)
    space = get_space("torchvision")
    positions = np.arange(len(space.ops))
    arguments = space.arguments(positions, np.full(len(positions), 9.0), np.ones(len(positions)), size)
    plans = {}
    for name, argument in zip(space.ops, arguments, strict=True):
        empty = empty_plan(count, 1, size)
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
