"""Forward passes without gradients: scores on unaugmented images, and a teacher on unaugmented training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from kdaug.data.crops import CenterCrop
from kdaug.data.loader import Batch, evaluation_keys, load, prefetch
from kdaug.device import autocast
from kdaug.errors import InputError
from kdaug.supervision import AnyTeacher
from kdaug.training.batches import Indices, unaugmented_batches
from kdaug.training.context import TrainContext
from kdaug.training.distributed import SINGLE_PROCESS, DistContext
from kdaug.training.out_of_memory import explain_out_of_memory, smaller_batch
from kdaug.training.progress import progress_bar, track

EVALUATION_BATCH = 256
"""The most images in one forward pass without gradients; fewer if run.device_batch is lower."""
_CPU_PIXELS = 32 * 224 * 224
"""The most pixels in one on a CPU, where larger batches are not faster but need gigabytes of memory."""
Split = Literal["train", "val"]


def evaluation_batch(context: TrainContext) -> int:
    """How many images a process passes through a network at once without gradients."""
    most = min(EVALUATION_BATCH, context.recipe.run.device_batch or EVALUATION_BATCH)
    if context.device.type == "cpu":
        height, width = context.dataset.size
        most = min(most, max(1, _CPU_PIXELS // (height * width)))
    return most


def explain_evaluation_memory(context: TrainContext, activity: str) -> AbstractContextManager[None]:
    """`explain_out_of_memory` for forward passes without gradients.

    It suggests what training itself passes at once, which does not change training, before anything smaller.
    """
    images, recipe = evaluation_batch(context), context.recipe
    share = recipe.optimization.global_batch // context.dist.world_size
    in_training = share // context.accumulation_steps
    smaller = in_training if 0 < in_training < images else smaller_batch(share, min(images, in_training))
    return explain_out_of_memory(activity, images, context.device, smaller)


Observer = Callable[[Batch, Tensor, Tensor], None]
"""Gets each batch that is evaluated, its logits float32 [N,C], and the `top_classes` of these."""
_RANKED = 5


def top_classes(logits: Tensor, count: int = _RANKED) -> Tensor:
    """The classes with the `count` largest logits [N,C], largest first: int64 [N,count], or [N,C] if C is less.

    At least five are always ranked, so that equal logits are ordered in the same way for any count up to five.
    """
    return logits.topk(min(max(count, _RANKED), logits.shape[1]), dim=1).indices[:, :count]


@dataclass(frozen=True)
class Scores:
    """top1_error and top5_error in percent, val_loss (mean cross-entropy in nats), over `images` images.

    balanced_error: the mean over the classes that have images of the top-1 error of each, in percent.
    """

    top1_error: float
    top5_error: float
    val_loss: float
    images: int
    balanced_error: float


def describe_errors(top1_error: float, top5_error: float, classes: int) -> str:
    """Both errors for messages; only the first with five classes or fewer, where the second is always 0."""
    return f"{top1_error:.2f} %" + (f" (top-5 {top5_error:.2f} %)" if classes > _RANKED else "")


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    device: torch.device,
    dist: DistContext = SINGLE_PROCESS,
    observe: Observer | None = None,
) -> Scores:
    """Scores of `predict` (views uint8 [N,H,W,C] -> logits [N,classes]) over the `batches` of all ranks.

    observe: is called for each batch of this rank that has images. The counts are exact, no sample counts twice. All
    ranks must have the same number of batches, some of which may be empty. With fewer than five classes, top-5 counts
    all of them. Raises InputError if there are no images.
    """
    totals = torch.zeros(2, dtype=torch.float64)  # correct in the top 5, loss
    by_class = torch.zeros(0, dtype=torch.float64)  # [classes] images, then [classes] correct ones
    for batch in batches:
        count = len(batch.labels)
        # A sharded network needs all ranks in every forward pass: a rank without images passes a black one.
        images = batch.images if count else np.zeros((1, *batch.images.shape[1:]), np.uint8)
        labels = torch.from_numpy(batch.labels).to(device)
        logits = predict(torch.from_numpy(images).to(device))[:count].float()
        ranked = top_classes(logits)
        top = ranked == labels[:, None]
        if observe is not None and count:
            observe(batch, logits, ranked)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        totals += torch.stack([top.sum(), loss]).double().cpu()
        is_correct, classes = top[:, 0].cpu().numpy(), logits.shape[1]
        seen = [np.bincount(each, minlength=classes) for each in (batch.labels, batch.labels[is_correct])]
        counted = torch.from_numpy(np.concatenate(seen)).double()
        by_class = by_class + counted if len(by_class) else counted
    top5, loss_sum, *counts = dist.sum(torch.cat([totals, by_class])).tolist()
    images, correct = np.reshape(counts, (2, -1))
    images_seen, top1 = float(images.sum()), float(correct.sum())
    if images_seen == 0:
        raise InputError("there is nothing to evaluate: all validation images are unreadable")
    top1_error, top5_error = (100 * (images_seen - each) / images_seen for each in (top1, top5))
    balanced_error = 100 * float(np.mean(1 - correct[images > 0] / images[images > 0]))
    return Scores(top1_error, top5_error, loss_sum / images_seen, int(images_seen), balanced_error)


def evaluate_split(
    context: TrainContext,
    predict: Callable[[Tensor], Tensor],
    bar: Progress,
    title: str = "evaluating",
    side: int | None = None,
    split: Split = "val",
    observe: Observer | None = None,
) -> Scores:
    """Scores of `predict` (see `evaluate`) on the images of `split`, unaugmented; unreadable ones are left out.

    bar: shows the progress, under `title`. side: of decoded photos, in pixels; None: as in training. observe: see
    `evaluate`.
    """
    dataset, dist = context.dataset, context.dist
    images, unreadable = (
        (dataset.val, context.unreadable_val) if split == "val" else (dataset.train, context.unreadable_train)
    )
    crop = CenterCrop(side or dataset.size[0])
    keys = evaluation_keys(len(images), evaluation_batch(context), dist.rank, dist.world_size)
    # In a thread, as in training: DataLoader raises in the main thread if a worker that it started there dies.
    batches = prefetch(load(images, keys, crop, context.recipe.data.workers, unreadable))
    with (
        explain_evaluation_memory(context, "evaluating"),
        torch.no_grad(),
        autocast(context.device, context.precision),
    ):
        tracked = track(bar, title, batches, len(images) // dist.world_size)
        return evaluate(predict, tracked, context.device, dist, observe)


def evaluate_student(
    context: TrainContext,
    network: nn.Module,
    bar: Progress,
    before_batch: Callable[[], None] = lambda: None,
    split: Split = "val",
    observe: Observer | None = None,
) -> Scores:
    """Scores of `network` in evaluation mode on the images of `split`, at run.evaluate_size if that is set.

    bar: shows the progress. before_batch: is called before each forward pass; its exceptions end the evaluation.
    observe: see `evaluate`.
    """
    side, input_format = context.recipe.run.evaluate_size, context.network_info.input_format
    if side is not None:
        input_format = replace(input_format, size=(side, side))
    context.dist.broadcast_buffers(network)
    network.eval()

    def predict(views: Tensor) -> Tensor:
        before_batch()
        logits: Tensor = network(input_format.normalize(views))
        return logits

    return evaluate_split(context, predict, bar, side=side, split=split, observe=observe)


def unaugmented_label_log_probs(
    context: TrainContext,
    teacher: AnyTeacher,
    indices: Indices | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Tensor:
    """The teacher's log-probability of the label of training images, float32 [N]; see `_over_unaugmented`.

    Label trust compares the views with it.
    """

    def of_label(log_probs: Tensor, labels: Tensor) -> Tensor:
        return log_probs.gather(1, labels[:, None].clamp(min=0))[:, 0]

    return _over_unaugmented(context, teacher, of_label, indices, before_batch)


def unaugmented_entropy(context: TrainContext, teacher: AnyTeacher) -> Tensor:
    """The entropy in nats of the teacher's predictions for training images, float32 [N]; see `_over_unaugmented`."""
    return _over_unaugmented(context, teacher, lambda log_probs, _: -(log_probs.exp() * log_probs).nansum(1))


def _over_unaugmented(
    context: TrainContext,
    teacher: AnyTeacher,
    measure: Callable[[Tensor, Tensor], Tensor],
    indices: Indices | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> Tensor:
    """`measure` of the teacher's log-probabilities [B,C] and the labels [B] of training images `indices`, unaugmented.

    indices: None for all. Returns float32 [N] for all N training images, in main memory, NaN for those unreadable or
    not in `indices`. The ranks share the batches, which are the same for any number of ranks. before_batch: is called
    before each forward pass; its exceptions end the passes.
    """
    count, dist, results = len(context.train_images), context.dist, list[tuple[Tensor, Tensor]]()
    indices = np.arange(count) if indices is None else indices
    size = evaluation_batch(context)
    batches = np.split(indices, range(size, len(indices), size))[dist.rank :: dist.world_size]
    with (
        explain_evaluation_memory(context, "the teacher's pass over the training images"),
        progress_bar(context.console) as bar,
        autocast(context.device, context.precision),
    ):
        images = unaugmented_batches(context, batches)
        for batch in track(bar, "teacher, unaugmented", images, sum(map(len, batches))):
            before_batch()
            images_on_device = torch.from_numpy(batch.images).to(context.device)
            log_probs = teacher(images_on_device, batch.key.indices).float().log_softmax(1).cpu()
            results.append((torch.from_numpy(batch.key.indices), measure(log_probs, torch.from_numpy(batch.labels))))
    measured = torch.full((count,), torch.nan)
    for of_rank in dist.gather(results):
        for of_batch, values in of_rank:
            measured[of_batch] = values
    return measured
