"""Measures of a run on a fixed sample of views: student's error and calibration, and how far it follows the teacher."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kdaug.calibration import calibration_bins, calibration_error
from kdaug.data.images import balanced_subset
from kdaug.data.loader import BatchKey, prefetch
from kdaug.device import autocast
from kdaug.supervision import SoftLabelSource
from kdaug.supervision.soft_labels import top_classes
from kdaug.training.batches import Indices, ViewBatch, make_views
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import evaluation_batch, explain_evaluation_memory

_SHARE = 0.02
"""Views per training image between two evaluations. One forward pass each is under 1 % of the time of the training
steps, which take at least a forward and a backward pass, three times as much, per image."""
_LEAST_VIEWS, _MOST_VIEWS, _MOST_BYTES = 50, 2_000, 64 << 20
"""Of the sample; the bytes are those of its pixels. With fewer than 2,500 images between two evaluations, _LEAST_VIEWS
are more than _SHARE."""
_STRENGTHS = "weak", "medium", "strong"


def recognition_k(context: TrainContext) -> int:
    """K of "the label is not in the teacher's top K": supervision.k, but fewer than there are classes."""
    classes = len(context.dataset.classes)
    return max(1, min(context.recipe.supervision.k or classes, classes - 1))


@dataclass(frozen=True)
class FixedViews:
    """This rank's part of the sample: views in batches, and the teacher's predictions for them.

    magnitude: planned, float64 [N]. teacher_predictions: see `_teacher_predictions`; empty without a teacher.
    """

    batches: tuple[ViewBatch, ...]
    magnitude: NDArray[np.float64]
    teacher_predictions: dict[str, NDArray[Any]]

    @property
    def mixed(self) -> bool:
        """Whether the views are mixed from two images: then they have no single label."""
        return any(batch.mixed_labels is not None for batch in self.batches)


def choose_views(context: TrainContext, source: SoftLabelSource | None) -> FixedViews:
    """The sample: views of the first epoch, of images balanced over the classes. It is the same in every run of the
    same recipe, also after it is resumed. Unreadable images are left out."""
    dataset = context.dataset
    height, width = dataset.size
    affordable = round(_SHARE * len(dataset.train) * context.recipe.run.evaluate_every)
    at_most = min(_MOST_VIEWS, _MOST_BYTES // (height * width * dataset.channels), len(dataset.train))
    count = max(context.dist.world_size, min(max(_LEAST_VIEWS, affordable), at_most))
    sample = balanced_subset(dataset.train.labels, count)
    own = np.array_split(sample, context.dist.world_size)[context.dist.rank]
    keys = [BatchKey(step, 0, indices, 0) for step, indices in enumerate(_in_batches(context, own, count))]
    # In a thread, as in training: DataLoader raises in the main thread if a worker that it started there dies.
    with closing(prefetch(make_views(context, keys, replace_unreadable=False))) as loaded:
        batches = tuple(loaded)
    magnitude = torch.cat([batch.magnitude for batch in batches]).double().numpy()
    if source is None or not context.uses_teacher(0):
        return FixedViews(batches, magnitude, {})
    with explain_evaluation_memory(context, "the teacher's pass over the fixed views"):
        predicted = [_teacher_predictions(context, source, batch) for batch in batches]
    names = set.intersection(*map(set, predicted))
    return FixedViews(batches, magnitude, {name: np.concatenate([each[name] for each in predicted]) for name in names})


def _in_batches(context: TrainContext, indices: Indices, count: int) -> list[Indices]:
    """`indices` in batches, as many on every rank: a sharded network needs all ranks in each forward pass."""
    number = math.ceil(count / context.dist.world_size / evaluation_batch(context))
    return np.array_split(indices, number)


def _teacher_predictions(context: TrainContext, source: SoftLabelSource, batch: ViewBatch) -> dict[str, NDArray[Any]]:
    """The teacher's most probable class int64 [N], and whether the label is not among its top K, bool [N].

    The latter is left out if the soft labels have fewer than K classes, as those of divergence hard have.
    """
    on_device, k = batch.to(context.device), recognition_k(context)
    with torch.no_grad(), autocast(context.device, context.precision):
        soft = source.soft_labels(on_device.pixels, on_device.labels, epoch=0, indices=batch.key.indices)
    found = {"teacher_top1": soft.top1.cpu().numpy()}
    top = top_classes(soft.scaled_log_probs, k) if soft.classes is None else soft.classes[:, :k]
    if top.shape[1] == k:
        found["past_recognition"] = (top != on_device.labels[:, None]).all(1).cpu().numpy()
    return found


def measure_views(context: TrainContext, network: nn.Module, views: FixedViews) -> dict[str, float]:
    """The measures of `network` in evaluation mode, in percent, by their names in metrics.jsonl. All ranks call it.

    view_error, view_calibration_error: of the student, against the labels; not for mixed views. With a teacher:
    view_past_recognition: share of views past recognition (not for mixed views); view_agreement: share for which
    student and teacher predict the same class, and view_agreement_weak, _medium, _strong: of thirds by magnitude.
    """
    own = {"magnitude": views.magnitude, **_predict(context, network, views), **views.teacher_predictions}
    parts = context.dist.gather(own)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in own}
    if not len(whole["magnitude"]):  # none of the images is readable
        return {}
    measures = dict[str, float]()
    if not views.mixed:
        correct = whole["top1"] == whole["label"]
        measures["view_error"] = _percent(~correct)
        measures["view_calibration_error"] = calibration_error(calibration_bins(whole["confidence"], correct))
        if "past_recognition" in whole:
            measures["view_past_recognition"] = _percent(whole["past_recognition"])
    if "teacher_top1" in whole:
        measures |= _agreement(whole["top1"] == whole["teacher_top1"], whole["magnitude"])
    return measures


def _agreement(agrees: NDArray[np.bool_], magnitude: NDArray[np.float64]) -> dict[str, float]:
    """Of all views, and of thirds by magnitude: weak is up to the 33rd percentile, medium up to the 67th. A third has
    no value if no view has such a magnitude; there are none if all views have the same."""
    found = {"view_agreement": _percent(agrees)}
    if magnitude.min() < magnitude.max():
        thirds = np.searchsorted(np.quantile(magnitude, [1 / 3, 2 / 3]), magnitude, side="left")
        for third in np.unique(thirds).tolist():
            found[f"view_agreement_{_STRENGTHS[third]}"] = _percent(agrees[thirds == third])
    return found


def _predict(context: TrainContext, network: nn.Module, views: FixedViews) -> dict[str, NDArray[Any]]:
    """Of each of this rank's views: the label, the student's most probable class and its probability, [N]."""
    network.eval()
    normalize = context.network_info.input_format.normalize
    top1, confidence = list[Tensor](), list[Tensor]()
    with (
        explain_evaluation_memory(context, "the pass over the fixed views"),
        torch.no_grad(),
        autocast(context.device, context.precision),
    ):
        for batch in views.batches:
            count = len(batch.labels)
            pixels = batch.pixels if count else torch.zeros(1, *batch.pixels.shape[1:], dtype=torch.uint8)
            highest = network(normalize(pixels.to(context.device)))[:count].float().softmax(1).max(1)
            top1.append(highest.indices.cpu())
            confidence.append(highest.values.double().cpu())
    labels = torch.cat([batch.labels for batch in views.batches])
    return {"label": labels.numpy(), "top1": torch.cat(top1).numpy(), "confidence": torch.cat(confidence).numpy()}


def _percent(share: NDArray[np.bool_]) -> float:
    return 100 * float(share.mean())
