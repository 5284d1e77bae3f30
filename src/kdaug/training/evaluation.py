"""How well a network does on images it has not seen: exact counts, no sample twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kdaug.data.loader import Batch
from kdaug.errors import InputError
from kdaug.training.distributed import DistContext


@dataclass(frozen=True)
class Scores:
    """top1_error and top5_error in percent of `images`, val_loss the mean cross-entropy in nats."""

    images: int
    top1_error: float
    top5_error: float
    val_loss: float

    def figures(self) -> dict[str, float]:
        """By the names they are logged under."""
        return {
            "top1_error": self.top1_error,
            "top5_error": self.top5_error,
            "val_loss": self.val_loss,
            "images": self.images,
        }


def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    device: torch.device,
    dist: DistContext = DistContext(),  # noqa: B008 - frozen
) -> Scores:
    """Scores of `predict` (views uint8 [N,H,W,C] to logits [N,classes]) over the `batches` of all ranks.

    All ranks have as many batches, empty ones among them if need be. With fewer than five classes, top-5 counts all of
    them. Raises InputError if there are no images.
    """
    totals = torch.zeros(4, dtype=torch.float64)  # images, right at once, right among five, loss
    for batch in batches:
        count = len(batch.labels)
        # a network spread over the ranks answers only if all ask: one that has no image left asks about a black one
        images = batch.images if count else np.zeros((1, *batch.images.shape[1:]), np.uint8)
        labels = torch.from_numpy(batch.labels).to(device)
        logits = predict(torch.from_numpy(images).to(device))[:count].float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        totals += torch.stack([loss.new_tensor(count), top[:, 0].sum(), top.sum(), loss]).double().cpu()
    seen, top1, top5, loss_sum = dist.sum(totals).tolist()
    if seen == 0:
        raise InputError("there is nothing to evaluate: all validation images are unreadable")
    return Scores(int(seen), 100 * (seen - top1) / seen, 100 * (seen - top5) / seen, loss_sum / seen)
