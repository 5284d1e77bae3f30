"""NVIDIA DALI on the CPU: its own RandAugment, drawn for each image, on batches that are arrays in memory."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaug.device import available_cores
from views_benchmark.peers import Run, ViewWorkload

CHANGED_VIEWS, COMPARED_VIEWS = 509, 1024
"""Of so many views, how many differ between batches of 8 and of 4 with the same seed: measured by the tests."""

DIFFERENCES = (
    "DALI's rand_augment in a CPU pipeline, drawn per image, with torchvision's ops, ranges and fill. Reads the batch "
    "without a copy, computes it within the call (no prefetching) and returns DALI's list of tensors. Its color ops "
    "are not Pillow's: brightness, color, contrast and sharpness differ by up to 1, equalize follows OpenCV, and "
    "solarize's threshold is 179.2 instead of 178.5. Bilinear values differ as well. Views depend on the batch size: "
    f"with the same seed, batches of 4 instead of 8 images change {CHANGED_VIEWS} of {COMPARED_VIEWS:,} views "
    "(DALI 2.4.0)."
)


def dali_on_cpu(threads: int | None) -> Callable[[ViewWorkload], Run]:
    """A contender on `threads` threads; None: as many as this process has cores."""

    def make(workload: ViewWorkload) -> Run:
        pipeline = build_pipeline(workload, len(workload.images), threads or available_cores())
        return lambda: pipeline.run()[0]  # waits until all views of the batch are in memory

    return make


def views_in_batches(workload: ViewWorkload, batch_size: int) -> NDArray[np.uint8]:
    """Views uint8 [N,H,W,3] of all images, made in batches. N must be divisible by `batch_size`."""
    pipeline = build_pipeline(workload, batch_size, threads=1)
    batches = range(len(workload.images) // batch_size)
    return np.concatenate([np.array(pipeline.run()[0].as_array()) for _ in batches])


def build_pipeline(workload: ViewWorkload, batch_size: int, threads: int) -> Any:
    """A pipeline whose run() augments the next batch, again from the first after the last. Seed 0, no GPU.

    With a queue of one batch, nothing is computed between two calls, so no work falls into another contender's time.
    """
    from nvidia.dali import pipeline_def, types
    from nvidia.dali.auto_aug.rand_augment import rand_augment
    from nvidia.dali.fn import external_source

    batches = itertools.cycle(_batches(workload.images, batch_size))
    filter = {"nearest": types.INTERP_NN, "bilinear": types.INTERP_LINEAR}[workload.filter]
    size = workload.images.shape[1:3]

    @pipeline_def(
        batch_size=batch_size,
        num_threads=threads,
        device_id=None,
        seed=0,
        exec_dynamic=True,
        prefetch_queue_depth=1,
        enable_conditionals=True,
    )
    def views() -> Any:
        images = external_source(
            source=lambda: next(batches), device="cpu", batch=True, layout="HWC", dtype=types.UINT8, no_copy=True
        )
        return rand_augment(images, n=2, m=9, shape=size, fill_value=0, interp_type=filter, max_translate_rel=150 / 331)

    with warnings.catch_warnings(record=True):  # DALI's rand_augment calls operators by their deprecated names
        pipeline = views()
        pipeline.build()
    return pipeline


def _batches(images: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    return (images[first : first + size] for first in range(0, len(images), size))
