"""A recipe tried out without its data: its real networks, views, loss and optimiser, two steps and an evaluation."""

from __future__ import annotations

import math
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from kdaug.config import Recipe, derive_teacher_recipe
from kdaug.data import ArrayImages, Dataset, EncodedImages
from kdaug.data.folder_index import FilePaths
from kdaug.data.folders import DEFAULT_SIZE, IMAGENET_MEAN, IMAGENET_STD
from kdaug.device import available_cores
from kdaug.errors import InputError
from kdaug.networks import InputFormat, create_network
from kdaug.rng.philox import Stream, words
from kdaug.supervision import Teacher
from kdaug.training.batches import training_batches
from kdaug.training.clean_log_probs import prepare_trust
from kdaug.training.context import build_context, check_trainable, evaluate_on_validation
from kdaug.training.loop import init_state
from kdaug.training.progress import progress_bar
from kdaug.training.resolve import resolve
from kdaug.training.step import train_step

STEPS = 2


@dataclass(frozen=True)
class SmokeTestResult:
    """What was seen: seconds of a step (the second one) and of an evaluation of two images, the most memory in bytes
    that this process (on a GPU: its tensors) has held so far, and the loss of the last step."""

    step_seconds: float
    evaluation_seconds: float
    peak_bytes: int
    loss: float


def smoke_test(recipe: Recipe, classes: int, answers: tuple[str, int] | None = None) -> SmokeTestResult:
    """Two optimisation steps of `recipe` on two images of noise at its real size, then an evaluation of two.

    With an adversary on one image a step, which that makes two of.

    A teacher to be trained is rehearsed first, and looks on with the fresh weights of its network; `answers` (network
    and side in pixels) stands for one that comes from a run. Raises InputError if anything is refused, or not finite.
    """
    batch = 1 if recipe.adversary.steps else 2
    with tempfile.TemporaryDirectory() as folder:
        small = replace(
            recipe,
            data=replace(recipe.data, workers=0, train_images=None),
            optimization=replace(recipe.optimization, global_batch=batch),
            run=replace(recipe.run, dir=str(Path(folder) / "run"), device_batch=None, threads=available_cores()),
        )
        dataset = _noise(small, classes, Path(folder))
        if small.teacher.source == "train":
            alone = derive_teacher_recipe(small)
            _steps(replace(alone, run=replace(alone.run, dir=small.run.dir)), dataset, None)
        return _steps(small, dataset, answers)


def _steps(recipe: Recipe, dataset: Dataset, answers: tuple[str, int] | None) -> SmokeTestResult:
    context = build_context(resolve(recipe), Console(quiet=True), dataset=dataset)
    check_trainable(context)
    state, teacher = init_state(context), _teacher(recipe, dataset, answers)
    if teacher is not None:
        teacher.to(context.device)
    seconds, loss = 0.0, math.nan
    prepare_trust(context, teacher)
    for view_batch in islice(training_batches(context, 0), STEPS):
        started = time.perf_counter()
        loss = train_step(context, state, teacher, view_batch).total.item()
        seconds = time.perf_counter() - started
    started = time.perf_counter()
    with progress_bar(context.console) as bar:
        scores = evaluate_on_validation(context, state.eval_model, bar)
    if not (math.isfinite(loss) and math.isfinite(scores.val_loss)):
        raise InputError(f"the loss is {loss} after {STEPS} steps, {scores.val_loss} in evaluation")
    return SmokeTestResult(seconds, time.perf_counter() - started, _peak_bytes(context.device), loss)


def _teacher(recipe: Recipe, dataset: Dataset, answers: tuple[str, int] | None) -> Teacher | None:
    """A teacher with fresh weights, of the network and input that the recipe's will have."""
    if recipe.teacher.source == "none":
        return None
    name, side = answers or (recipe.teacher.network or recipe.student.name, None)
    network = create_network(name, len(dataset.classes), dataset.channels)
    return Teacher(network, InputFormat(dataset.mean, dataset.std, None if side is None else (side, side)))


def _noise(recipe: Recipe, classes: int, folder: Path) -> Dataset:
    """Four training and two validation images of noise, in the kind and size of the recipe's own."""
    labels = np.arange(2 * STEPS, dtype=np.int64) % classes
    names = tuple(f"class {number}" for number in range(classes))
    if recipe.data.encoded:
        side = recipe.data.image_size or DEFAULT_SIZE
        files = FilePaths.joined(folder, b"\0".join(b"%d.jpg" % number for number in range(len(labels))), len(labels))
        for path, noise in zip(files, _pixels(len(files), side * 5 // 4, side * 3 // 2, 3), strict=True):
            Image.fromarray(noise).save(path)
        photos = EncodedImages(files, labels)
        val, size = photos.subset(np.arange(2)), (side, side)
        return Dataset("noise", names, photos, val, size, IMAGENET_MEAN, IMAGENET_STD, "noise")
    side, channels = (28, 1) if recipe.data.name in ("bundled", "fashion-mnist") else (32, 3)
    images = ArrayImages(_pixels(len(labels), side, side, channels), labels)
    half = (0.5,) * channels
    return Dataset("noise", names, images, images.subset(np.arange(2)), (side, side), half, half, "noise")


def _pixels(count: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Noise, the same every time: uint8 [count,height,width,channels]."""
    values = height * width * channels
    drawn = words(0, 0, np.arange(count), Stream.SUBSET, -(-values // 4))
    return np.ascontiguousarray(drawn).view(np.uint8)[:, :values].reshape(count, height, width, channels)


def smoke_test_in_subprocess(
    recipe: Recipe, classes: int, answers: tuple[str, int] | None = None
) -> SmokeTestResult | str:
    """`smoke_test` in a process of its own, so that memory is this recipe's alone; what went wrong, if it did."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, recipe, classes, answers), daemon=True)
    process.start()
    there.close()
    try:
        seen: SmokeTestResult | str = here.recv()
    except EOFError:
        process.join()
        seen = f"its process ended with code {process.exitcode} (-9: killed by the system, if memory ran out)"
    process.join()
    return seen


def _send(there: Connection, recipe: Recipe, classes: int, answers: tuple[str, int] | None) -> None:
    try:
        there.send(smoke_test(recipe, classes, answers))
    except Exception as error:  # whatever it is, it is what the check is for
        there.send(f"{type(error).__name__}: {' '.join(str(error).split())}")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
