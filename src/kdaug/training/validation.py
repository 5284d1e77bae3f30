"""Evaluation on the validation images of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from rich.progress import Progress
from torch import nn

from kdaug.data.crops import CenterCrop
from kdaug.data.loader import Batch, evaluation_keys, load, prefetch
from kdaug.device import autocast
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import Scores, evaluate
from kdaug.training.progress import track

EVALUATION_BATCH = 256
"""Images in one forward pass without gradients."""


def validation_batches(context: TrainContext, side: int | None = None) -> Iterable[Batch]:
    """This rank's share of the validation images, without augmentation; unreadable ones are left out.

    side: of decoded photos, in pixels; None: as in training.
    """
    val, dist = context.dataset.val, context.dist
    crop = CenterCrop(side or context.dataset.size[0])
    keys = evaluation_keys(len(val), EVALUATION_BATCH, dist.rank, dist.size)
    # In a thread, as in training: DataLoader raises in the main thread if a worker that it started there dies.
    return prefetch(load(val, keys, crop, context.recipe.data.workers, context.unreadable_val))


def evaluate_on_validation(
    context: TrainContext,
    network: nn.Module,
    bar: Progress,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = lambda batches: batches,
) -> Scores:
    """Scores of `network` in evaluation mode on the validation images, at run.evaluate_size if that is set.

    bar: shows the progress. watch: passes the batches on as they are evaluated, and may stop by an exception.
    """
    side, input_format = context.recipe.run.evaluate_size, context.card.input_format
    if side is not None:
        input_format = replace(input_format, size=(side, side))
    images = len(context.dataset.val) // context.dist.size
    batches = track(bar, "evaluating", validation_batches(context, side), images)
    context.dist.broadcast_buffers(network)
    network.eval()
    with torch.no_grad(), autocast(context.device, context.precision):
        return evaluate(
            lambda views: network(input_format.prepare(views)), watch(batches), context.device, context.dist
        )
