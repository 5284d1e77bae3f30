"""What a teacher predicts for the views of a policy at several magnitudes: the measures that a recommendation uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress, TaskID
from torch.utils.flop_counter import FlopCounterMode

from kdaug.data.images import balanced_subset
from kdaug.errors import InputError
from kdaug.inspection.design import inspected_space, policy_magnitude
from kdaug.inspection.making import policy_views
from kdaug.inspection.measures import Estimate, mean_estimate, share_estimate
from kdaug.inspection.table import Kind, PredictedBatch, Predictor, split_batches, unaugmented_of
from kdaug.supervision import AnyTeacher
from kdaug.supervision.adaptive import label_trust
from kdaug.supervision.teacher import average_of
from kdaug.training.batches import Indices
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import explain_evaluation_memory
from kdaug.training.progress import progress_bar
from kdaug.views.space import Space

VIEWS_PER_DRAW = 640
"""Views whose mean probability is one draw of T. stddev: ten batches of 64, as in the code of Wang et al. (2022)."""
MASS = 0.95
"""Share of the teacher's probability that the K most probable classes are to hold, on average over the views."""
_OPERATIONS = 4e12
"""Of the teacher, for the default number of images: meant to take minutes on two cores. More with _LEAST_VIEWS only."""
_MOST_VIEWS, _LEAST_VIEWS, _MOST_DRAWS = 2_000, 200, 4
"""Of the default number of views at each magnitude and of views of one image."""
_LEAST_IMAGES = 2
"""One has no standard deviation."""
_FRACTIONS = 0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9
_FRACTIONS_WITHOUT_LIMIT = 0, 0.2, 0.4, 0.6, 0.9, 1.2, 1.5, 2, 2.8
"""Default magnitudes as fractions of the full level. Without a limit they go on to the paper's M = 28."""


@dataclass(frozen=True)
class EvidenceRequest:
    """How much is measured. None: chosen so that it takes minutes on two cores.

    images: number of validation images, balanced over the classes; all if there are fewer. draws: views of each image
    at each magnitude, each as in another epoch. magnitudes: of the policy; its own is added.
    """

    images: int | None = None
    draws: int | None = None
    magnitudes: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Evidence:
    """The measures of the views at one magnitude.

    views: how many. past: share past recognition (the label is not among the K most probable classes). trust: mean
    label trust (see `label_trust`). t_stddev: T. stddev, see `expected_stddev`. k: the fewest classes that hold 95 % of
    the teacher's probability on average over the views, at least 2 if there are as many.
    """

    magnitude: float
    views: int
    past: Estimate
    trust: Estimate
    t_stddev: float
    k: int


@dataclass(frozen=True)
class MeasuredViews:
    """The evidence for each magnitude in ascending order, from `draws` views of each of `images` images.

    unreadable: how many images were left out.
    """

    evidence: tuple[Evidence, ...]
    images: int
    draws: int
    unreadable: int


def on_validation_images(context: TrainContext) -> TrainContext:
    """`context` with its validation images in place of the training images, so that views of them are made."""
    return replace(
        context, dataset=replace(context.dataset, train=context.dataset.val), unreadable_train=context.unreadable_val
    )


def recommended_magnitudes(context: TrainContext, requested: tuple[float, ...] | None) -> tuple[float, ...]:
    """The magnitudes to measure, ascending, the policy's own included.

    Raises InputError if the policy has no magnitude, or one is out of the range of its space.
    """
    spec = context.recipe.views.policy
    own = policy_magnitude(spec, context.recipe.optimization.epochs)
    if own is None:
        raise InputError(
            f"policy {spec} has no magnitude to recommend",
            "set views.policy to one that has, such as randaugment-n2-m5@paper-geometric; kdaug views lists them",
        )
    space, _ = inspected_space(context)
    if requested is not None and not requested:
        raise InputError("magnitudes is empty, but must have at least one number")
    magnitudes = sorted({own, *(_default_magnitudes(space) if requested is None else map(float, requested))})
    for magnitude in magnitudes:
        space.check_level(magnitude, "a magnitude")
    return tuple(magnitudes)


def check_counts(context: TrainContext, request: EvidenceRequest) -> None:
    """Raises InputError for a number of images or draws that is out of range."""
    epochs = context.recipe.optimization.epochs
    if request.images is not None and request.images < _LEAST_IMAGES:
        raise InputError(f"images is {request.images}, but must be at least {_LEAST_IMAGES}")
    if request.draws is not None and not 1 <= request.draws <= epochs:
        raise InputError(
            f"draws is {request.draws}, but must be from 1 to {epochs}, the epochs of the recipe, each of which has "
            "one view of an image",
            "set optimization.epochs to have more",
        )


def _default_magnitudes(space: Space) -> list[float]:
    fractions = _FRACTIONS_WITHOUT_LIMIT if space.limit is None else _FRACTIONS
    levels = [round(fraction * space.full_level, 6) for fraction in fractions]
    return [float(round(level)) if space.integer_levels else level for level in levels]


def measure_magnitudes(context: TrainContext, teacher: AnyTeacher, request: EvidenceRequest) -> MeasuredViews:
    """The measures of views of the validation images of `context` at each magnitude.

    Raises InputError for a number out of range, and if fewer than two images are readable.
    """
    check_counts(context, request)
    magnitudes = recommended_magnitudes(context, request.magnitudes)
    on_val = on_validation_images(context)
    indices, epochs = _choose_views(on_val, teacher, request, len(magnitudes))
    passes = 1 + len(magnitudes) * len(epochs)
    with progress_bar(context.console) as bar, explain_evaluation_memory(context, "measuring the views"):
        count = partial(_count, bar, bar.add_task("measuring", total=len(indices) * passes, speed="", metrics=""))
        predictor = Predictor(on_val, average_of(teacher))
        unaugmented = _label_probs(on_val, count(predictor.run(unaugmented_of(on_val, indices), Kind.UNAUGMENTED)))
        readable = predictor.readable
        if len(readable) < _LEAST_IMAGES:
            raise InputError(
                f"{len(readable)} of the validation images can be read, but at least {_LEAST_IMAGES} are needed"
            )
        evidence = tuple(
            summarize(magnitude, count(_predict(predictor, magnitude, epochs, readable)), unaugmented)
            for magnitude in magnitudes
        )
    return MeasuredViews(evidence, len(readable), len(epochs), len(indices) - len(readable))


def _count(bar: Progress, task: TaskID, batches: Iterable[PredictedBatch]) -> Iterator[PredictedBatch]:
    """Yields `batches` and counts their views on `bar`."""
    for batch in batches:
        yield batch
        bar.advance(task, len(batch.rows))


def _label_probs(context: TrainContext, batches: Iterable[PredictedBatch]) -> NDArray[np.float64]:
    """The probability of the label for each training image of `context`, float64 [N]; NaN without a prediction."""
    probs = np.full(len(context.dataset.train), np.nan)
    for batch in batches:
        probs[batch.rows.image] = batch.rows.label_prob
    return probs


def _predict(
    predictor: Predictor, magnitude: float, epochs: tuple[int, ...], indices: Indices
) -> Iterator[PredictedBatch]:
    context = predictor.context
    for epoch in epochs:
        views = policy_views(context, epoch, magnitude, split_batches(context, indices))
        yield from predictor.run(views, Kind.POLICY, epoch=epoch, magnitude=magnitude)


def _choose_views(
    context: TrainContext, teacher: AnyTeacher, request: EvidenceRequest, magnitudes: int
) -> tuple[Indices, tuple[int, ...]]:
    """Which images are measured, and in which epochs their views are made."""
    labels, epochs = context.dataset.train.labels, context.recipe.optimization.epochs
    affordable = int(_OPERATIONS / (magnitudes + 1) / forward_operations(context, teacher))
    views = min(max(affordable, _LEAST_VIEWS), _MOST_VIEWS)
    images = min(views if request.images is None else request.images, len(labels))
    draws = min(_MOST_DRAWS, epochs, max(1, views // images)) if request.draws is None else request.draws
    spaced = np.linspace(0, epochs - 1, draws).round().astype(int).tolist()  # some policies are schedules over the run
    return balanced_subset(labels, images), tuple(spaced)


def forward_operations(context: TrainContext, teacher: AnyTeacher) -> int:
    """The teacher's operations for one view: a multiplication and an addition are two, at least 1."""
    dataset = context.dataset
    image = torch.zeros(1, *dataset.size, dataset.channels, dtype=torch.uint8, device=context.device)
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter, torch.no_grad():
        for member in teacher.members:
            member.network(member.input_format.normalize(image))
    return max(1, int(counter.get_total_flops()))


def summarize(magnitude: float, batches: Iterable[PredictedBatch], unaugmented: NDArray[np.float64]) -> Evidence:
    """The measures of all views in `batches`. unaugmented: the teacher's probability of the label by image, [N]."""
    images, in_top_k, trust, moments = list[Indices](), list[NDArray[np.bool_]](), list[NDArray[np.float64]](), None
    for batch in batches:
        rows = batch.rows
        images.append(rows.image)
        in_top_k.append(rows.in_top_k)
        trust.append(_trust(rows.label_prob, unaugmented[rows.image]))
        moments = _Moments.of(batch.probs) if moments is None else moments + _Moments.of(batch.probs)
    assert moments is not None  # there is a readable image
    image = np.concatenate(images)
    return Evidence(
        magnitude,
        len(image),
        share_estimate(~np.concatenate(in_top_k), image),
        mean_estimate(np.concatenate(trust), image).within(1),
        moments.expected_stddev(),
        moments.classes_with(MASS),
    )


def _trust(view: NDArray[np.float64], unaugmented: NDArray[np.float64]) -> NDArray[np.float64]:
    trust: NDArray[np.float64] = label_trust(torch.from_numpy(view).log(), torch.from_numpy(unaugmented).log()).numpy()
    return trust


@dataclass(frozen=True)
class _Moments:
    """Sums over `views` views: of the probabilities and their squares by class [C], and by rank of the class [C]."""

    views: int
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    by_rank: NDArray[np.float64]

    @staticmethod
    def of(probs: NDArray[np.float64]) -> _Moments:
        """The sums over the rows of `probs` [N,C]."""
        return _Moments(len(probs), probs.sum(0), (probs**2).sum(0), -np.sort(-probs, axis=1).sum(0))

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(
            self.views + other.views,
            self.total + other.total,
            self.squares + other.squares,
            self.by_rank + other.by_rank,
        )

    def expected_stddev(self) -> float:
        """T. stddev (Wang et al., NeurIPS 2022): how much the teacher's mean probability differs between draws.

        A draw is VIEWS_PER_DRAW views of different images; the standard deviation over draws of their mean probability
        of a class is averaged over the classes. The authors draw repeatedly. This is the expected result of that, from
        the standard deviation over single views.
        """
        variance = (self.squares - self.total**2 / self.views) / (self.views - 1)
        return float(np.sqrt(np.maximum(variance, 0) / VIEWS_PER_DRAW).mean())

    def classes_with(self, mass: float) -> int:
        """The fewest classes that hold at least `mass` on average, but at least 2, if there are as many."""
        held = self.by_rank.cumsum() / self.views
        fewest = int(np.searchsorted(held, mass - 1e-9)) + 1
        return min(max(fewest, 2), len(held))
