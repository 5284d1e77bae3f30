"""Top-1 error, top-5 error and loss on images: exact counts, no sample twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kdaug.data.loader import Batch
from kdaug.errors import InputError
from kdaug.training.distributed import DistContext


@dataclass(frozen=True)
class Scores:
    """top1_error and top5_error in percent, val_loss (mean cross-entropy in nats), over `images` images."""

    top1_error: float
    top5_error: float
    val_loss: float
    images: int

    def figures(self) -> dict[str, float]:
        """The scores by the names they are logged under."""
        return asdict(self)


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    device: torch.device,
    dist: DistContext = DistContext(),  # noqa: B008 - frozen
) -> Scores:
    """Scores of `predict` (views uint8 [N,H,W,C] -> logits [N,classes]) over the `batches` of all ranks.

    All ranks must have the same number of batches, some of which may be empty. With fewer than five classes, top-5
    counts all of them. Raises InputError if there are no images.
    """
    totals = torch.zeros(4, dtype=torch.float64)  # images, correct in the top 1, correct in the top 5, loss
    for batch in batches:
        count = len(batch.labels)
        # A sharded network needs all ranks in every forward pass: a rank without images passes a black one.
        images = batch.images if count else np.zeros((1, *batch.images.shape[1:]), np.uint8)
        labels = torch.from_numpy(batch.labels).to(device)
        logits = predict(torch.from_numpy(images).to(device))[:count].float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        totals += torch.stack([loss.new_tensor(count), top[:, 0].sum(), top.sum(), loss]).double().cpu()
    images_seen, top1, top5, loss_sum = dist.sum(totals).tolist()
    if images_seen == 0:
        raise InputError("there is nothing to evaluate: all validation images are unreadable")
    return Scores(
        top1_error=100 * (images_seen - top1) / images_seen,
        top5_error=100 * (images_seen - top5) / images_seen,
        val_loss=loss_sum / images_seen,
        images=int(images_seen),
    )
