"""A smoke test of a recipe without its data: its real networks, views, loss and optimizer, two steps, an evaluation."""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from kdaug.config import Recipe, derive_teacher_recipe
from kdaug.config.datasets import ARRAY_DATASETS
from kdaug.data import ArrayImages, Dataset, EncodedImages
from kdaug.data.folder_index import FilePaths
from kdaug.data.images import encoded_dataset
from kdaug.device import available_cores
from kdaug.errors import InputError, one_line
from kdaug.rng import Stream, random_words
from kdaug.training.batches import training_batches
from kdaug.training.context import build_context, check_trainable
from kdaug.training.evaluation import evaluate_student
from kdaug.training.progress import progress_bar
from kdaug.training.resolve import resolve
from kdaug.training.state import init_state
from kdaug.training.step import TrainStep
from kdaug.training.teacher import untrained_soft_labels

STEPS = 2


@dataclass(frozen=True)
class SmokeTestResult:
    """step_seconds: of the second step. evaluation_seconds: of two images. peak_bytes: the most memory that this
    process (on a GPU: its tensors) has used. loss: of the last step."""

    step_seconds: float
    evaluation_seconds: float
    peak_bytes: int
    loss: float


def smoke_test(recipe: Recipe, classes: int, teacher: tuple[str, int] | None = None) -> SmokeTestResult:
    """Takes two training steps of `recipe` on two images of noise at its real size, then evaluates two.

    With an adversary each step has one image, plus its adversarial version. A teacher to be trained is tested first,
    and gives soft labels with untrained weights. teacher: (network, image size) in place of a teacher that comes from
    a run. Raises InputError if a setting is invalid or the loss is not finite.
    """
    batch = 1 if recipe.adversary.steps else 2
    with tempfile.TemporaryDirectory() as folder:
        small = replace(
            recipe,
            data=replace(recipe.data, workers=0, train_images=None, measure_unused=False),
            optimization=replace(recipe.optimization, global_batch=batch),
            run=replace(recipe.run, dir=str(Path(folder) / "run"), device_batch=None, threads=available_cores()),
        )
        dataset = _noise_dataset(small, classes, Path(folder))
        if small.teacher.source == "train":
            _run_steps(derive_teacher_recipe(small), dataset, None)
        return _run_steps(small, dataset, teacher)


def _run_steps(recipe: Recipe, dataset: Dataset, teacher: tuple[str, int] | None) -> SmokeTestResult:
    context = build_context(resolve(recipe), Console(quiet=True), dataset=dataset)
    check_trainable(context)
    soft_labels = untrained_soft_labels(context, teacher)
    if soft_labels is not None:
        soft_labels.prepare()
    state = init_state(context)
    step = TrainStep(context, state, soft_labels)
    seconds, loss = 0.0, math.nan
    for batch in islice(training_batches(context, 0), STEPS):
        started = time.perf_counter()
        loss = step(batch).mean.item()
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    with progress_bar(context.console) as bar:
        scores = evaluate_student(context, state.eval_model, bar)
    if not (math.isfinite(loss) and math.isfinite(scores.val_loss)):
        raise InputError(f"the loss is {loss} after {STEPS} steps, {scores.val_loss} in evaluation")
    return SmokeTestResult(seconds, time.perf_counter() - started, _peak_bytes(context.device), loss)


def _noise_dataset(recipe: Recipe, classes: int, folder: Path) -> Dataset:
    """Four training and two validation images of noise, of the kind and size of the recipe's own."""
    labels = np.arange(2 * STEPS, dtype=np.int64) % classes
    names = tuple(f"class {index}" for index in range(classes))
    side = recipe.data.side
    if recipe.data.encoded:
        files = FilePaths.from_bytes(folder, b"\0".join(b"%d.jpg" % i for i in range(len(labels))), len(labels))
        for path, pixels in zip(files, _noise(len(files), side * 5 // 4, side * 3 // 2, 3), strict=True):
            Image.fromarray(pixels).save(path)
        photos = EncodedImages(files, labels)
        return encoded_dataset(recipe.data, names, photos, photos.subset(np.arange(2)), "noise", "noise")
    channels = ARRAY_DATASETS[recipe.data.name].channels
    images = ArrayImages(_noise(len(labels), side, side, channels), labels)
    half = (0.5,) * channels
    return Dataset("noise", names, images, images.subset(np.arange(2)), (side, side), half, half, "noise")


def _noise(count: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """The same noise in each call: uint8 [count,height,width,channels]."""
    values = height * width * channels
    drawn = random_words(0, 0, np.arange(count), Stream.SUBSET, -(-values // 4))
    return np.ascontiguousarray(drawn).view(np.uint8)[:, :values].reshape(count, height, width, channels)


def smoke_test_in_subprocess(
    recipe: Recipe, classes: int, teacher: tuple[str, int] | None = None
) -> SmokeTestResult | str:
    """`smoke_test` in a process of its own, so that peak_bytes is this recipe's; the error as text if it fails."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(1, context) as executor:
        try:
            return executor.submit(smoke_test, recipe, classes, teacher).result()
        except BrokenProcessPool:
            return "its process ended without a result (killed by the system, perhaps as memory ran out)"
        except Exception as error:  # finding any error is what the test is for
            return f"{type(error).__name__}: {one_line(error)}"


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
