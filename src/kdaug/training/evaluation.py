"""How well a network does on images it has not seen: exact counts, no sample twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kdaug.data.loader import Batch
from kdaug.errors import InputError


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


def evaluate(predict: Callable[[Tensor], Tensor], batches: Iterable[Batch], device: torch.device) -> Scores:
    """Scores of `predict` (views uint8 [N,H,W,C] to logits [N,classes]) over all `batches`.

    With fewer than five classes, top-5 counts all of them. Raises InputError if there are no images.
    """
    images, top1, top5, loss = 0, 0, 0, 0.0
    for batch in batches:
        if len(batch.labels) == 0:
            continue
        labels = torch.from_numpy(batch.labels).to(device)
        logits = predict(torch.from_numpy(batch.images).to(device)).float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        images += len(labels)
        top1 += int(top[:, 0].sum())
        top5 += int(top.sum())
        loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    if images == 0:
        raise InputError("there is nothing to evaluate: all validation images are unreadable")
    return Scores(images, 100 * (images - top1) / images, 100 * (images - top5) / images, loss / images)
