"""What a teacher predicts for the inspected views: one row per view, computed batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdaug.data.loader import prefetch
from kdaug.device import autocast
from kdaug.errors import InputError
from kdaug.inference.predictions import class_probabilities
from kdaug.inspection.design import Design
from kdaug.inspection.keys import ViewKey
from kdaug.inspection.making import Views, policy_views, single_op_views, unaugmented_views
from kdaug.supervision import AnyTeacher
from kdaug.supervision.soft_labels import top_classes
from kdaug.training.batches import Indices, unaugmented_batches
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import evaluation_batch, explain_evaluation_memory
from kdaug.training.view_measures import recognition_k


class Kind(IntEnum):
    """What a view is: the unaugmented image, a view under the policy, or one under a single op."""

    UNAUGMENTED = 0
    POLICY = 1
    OP = 2


@dataclass(frozen=True, eq=False)
class ViewTable:
    """One row per view, all columns [N].

    image: row of the image in the training set. kind: see `Kind`. op: position in `Design.ops`, -1 unless kind is OP.
    epoch: -1 unless kind is POLICY. magnitude: of the policy, or level of the op; NaN for none. planned_magnitude: see
    `kdaug.views.magnitude`. label, top1: the image's class, and the teacher's most probable class. label_prob: the
    teacher's probability of the label. entropy: of its probabilities, in nats. agrees: whether top1 is that of the
    unaugmented image. in_top_k: whether the label is among the teacher's K most probable classes.
    """

    image: NDArray[np.int64]
    kind: NDArray[np.uint8]
    op: NDArray[np.int16]
    epoch: NDArray[np.int32]
    magnitude: NDArray[np.float64]
    planned_magnitude: NDArray[np.float32]
    label: NDArray[np.int32]
    top1: NDArray[np.int32]
    label_prob: NDArray[np.float64]
    entropy: NDArray[np.float64]
    agrees: NDArray[np.bool_]
    in_top_k: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> ViewTable:
        """Some rows."""
        return ViewTable(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def key(self, row: int, ops: Sequence[str]) -> ViewKey:
        """The key of the view in `row`. ops: `Design.ops`."""
        image, level = int(self.image[row]), float(self.magnitude[row])
        match Kind(self.kind[row]):
            case Kind.UNAUGMENTED:
                return ViewKey(image)
            case Kind.POLICY:
                return ViewKey(image, int(self.epoch[row]), None if np.isnan(level) else level)
            case Kind.OP:
                return ViewKey(image, op=ops[self.op[row]], level=level)


class TableBuilder:
    """A table to which batches of rows are added. It is allocated at once: many small arrays would fragment memory.

    size: the number of rows that it has space for.
    """

    def __init__(self, size: int) -> None:
        self._size, self._count = size, 0
        self._columns: dict[str, NDArray[Any]] = {}

    def add(self, rows: ViewTable) -> None:
        start, self._count = self._count, self._count + len(rows)
        for field in fields(ViewTable):
            values = getattr(rows, field.name)
            if field.name not in self._columns:
                self._columns[field.name] = np.empty(self._size, values.dtype)
            self._columns[field.name][start : self._count] = values

    def build(self) -> ViewTable:
        """The rows that were added, at least one."""
        return ViewTable(**{name: column[: self._count] for name, column in self._columns.items()})


@dataclass(frozen=True, eq=False)
class PredictedBatch:
    """Views with their rows of the table, and the teacher's probabilities float64 [N,C] for them."""

    views: Views
    rows: ViewTable
    probs: NDArray[np.float64]


def teacher_logits(context: TrainContext, teacher: AnyTeacher, pixels: NDArray[np.uint8], indices: Indices) -> Tensor:
    """The teacher's logits float32 [N,C] for views uint8 [N,H,W,C] of the images `indices`, computed as in training."""
    with torch.no_grad(), autocast(context.device, context.precision):
        logits: Tensor = teacher(torch.from_numpy(pixels).to(context.device), indices)
    return logits.float()


def predict_design(context: TrainContext, teacher: AnyTeacher, design: Design) -> Iterator[PredictedBatch]:
    """The teacher's predictions for all views of `design`, the unaugmented images first. Little is kept in memory.

    Unreadable images are left out. Raises InputError if none is readable, or the teacher's outputs are not finite.
    """
    predictor = Predictor(context, teacher)
    with explain_evaluation_memory(context, "inspecting"):
        yield from predictor.run(unaugmented_of(context, design.indices), Kind.UNAUGMENTED)
        readable = predictor.readable
        if not len(readable):
            raise InputError("none of the images is readable")
        batches = split_batches(context, readable)
        for epoch, magnitude in design.policy_settings():
            views = policy_views(context, epoch, magnitude, batches)
            yield from predictor.run(views, Kind.POLICY, epoch=epoch, magnitude=magnitude)
        yield from _predict_ops(predictor, design, readable)


def split_batches(context: TrainContext, indices: Indices) -> list[Indices]:
    """`indices` in batches for the teacher."""
    size = evaluation_batch(context)
    return np.split(indices, range(size, len(indices), size))


def unaugmented_of(context: TrainContext, indices: Indices) -> Iterator[Views]:
    """The images `indices`, unaugmented, in batches."""
    return map(unaugmented_views, unaugmented_batches(context, split_batches(context, indices)))


def _predict_ops(predictor: Predictor, design: Design, indices: Indices) -> Iterator[PredictedBatch]:
    """Each image under some ops alone, at every level; an image is decoded once."""
    context = predictor.context
    with closing(prefetch(unaugmented_batches(context, split_batches(context, indices)))) as batches:
        for batch in batches:
            if not len(batch.labels):
                continue
            for op in design.ops_of(batch.key.indices).T:
                names = [design.ops[position] for position in op.tolist()]
                for level in design.levels:
                    views = single_op_views(context, design.space, batch, names, level)
                    yield predictor(views, Kind.OP, op=op, magnitude=level)


class Predictor:
    """Predicts batches of views. It keeps the top-1 class of each unaugmented image, to compare the views with it."""

    def __init__(self, context: TrainContext, teacher: AnyTeacher) -> None:
        self.context, self._teacher, self._k = context, teacher, recognition_k(context)
        self._unaugmented_top1 = np.full(len(context.dataset.train), -1, np.int32)

    @property
    def readable(self) -> Indices:
        """The images that were predicted unaugmented, sorted."""
        return np.flatnonzero(self._unaugmented_top1 >= 0)

    def run(
        self, views: Iterator[Views], kind: Kind, epoch: int = -1, magnitude: float | None = None
    ) -> Iterator[PredictedBatch]:
        """The predictions for all batches; they are loaded in a thread meanwhile."""
        with closing(prefetch(views)) as batches:
            for batch in batches:
                if len(batch):
                    yield self(batch, kind, epoch=epoch, magnitude=magnitude)

    def __call__(
        self,
        views: Views,
        kind: Kind,
        op: NDArray[np.int64] | None = None,
        epoch: int = -1,
        magnitude: float | None = None,
    ) -> PredictedBatch:
        """The predictions for one batch."""
        count, labels = len(views), torch.from_numpy(views.labels)
        probs = class_probabilities(teacher_logits(self.context, self._teacher, views.pixels, views.indices))
        top = top_classes(probs, self._k)
        top1 = top[:, 0].numpy().astype(np.int32)
        if kind == Kind.UNAUGMENTED:
            self._unaugmented_top1[views.indices] = top1
        rows = ViewTable(
            image=views.indices,
            kind=np.full(count, kind, np.uint8),
            op=np.full(count, -1, np.int16) if op is None else op.astype(np.int16),
            epoch=np.full(count, epoch, np.int32),
            magnitude=np.full(count, np.nan if magnitude is None else magnitude),
            planned_magnitude=views.planned_magnitude.astype(np.float32),
            label=views.labels.astype(np.int32),
            top1=top1,
            label_prob=probs.gather(1, labels[:, None])[:, 0].numpy(),
            entropy=-torch.special.xlogy(probs, probs).sum(1).numpy(),
            agrees=top1 == self._unaugmented_top1[views.indices],
            in_top_k=(top == labels[:, None]).any(1).numpy(),
        )
        return PredictedBatch(views, rows, probs.numpy())
