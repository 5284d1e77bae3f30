"""What augmentation does to a teacher's predictions: means with 95 % intervals by op, magnitude and class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kdaug.inspection.design import Design
from kdaug.inspection.table import Kind, ViewTable
from kdaug.intervals import Z, wilson_interval

_STRENGTH_BINS = 7


@dataclass(frozen=True)
class Estimate:
    """A mean or a share, and its 95 % interval; the interval is NaN if there is one image only."""

    value: float
    low: float
    high: float

    def within(self, largest: float) -> Estimate:
        """The interval without values below 0 or above `largest`, which the measure cannot have."""
        return replace(self, low=float(np.maximum(self.low, 0)), high=float(np.minimum(self.high, largest)))


@dataclass(frozen=True)
class Measures:
    """Of `views` views of `images` images: mean probability of the label, mean entropy in nats, share of views whose
    top-1 class is that of the unaugmented image, and share of views past recognition (label not in the top K)."""

    views: int
    images: int
    label_prob: Estimate
    entropy: Estimate
    agreement: Estimate
    past: Estimate


@dataclass(frozen=True)
class CurvePoint:
    """The measures at one magnitude of the policy, level of an op, or mean planned magnitude."""

    level: float
    measures: Measures


@dataclass(frozen=True)
class ClassMeasures:
    """A class: the measures of its views, and the mean probability of the label for its unaugmented images."""

    label: int
    unaugmented: float
    measures: Measures

    @property
    def drop(self) -> float:
        """How much lower the mean probability of the label is for the views, 0..1."""
        return self.unaugmented - self.measures.label_prob.value


def mean_estimate(values: NDArray[np.float64], images: NDArray[np.int64]) -> Estimate:
    """The mean of values [N] and mean ± 1.96 standard errors. images: the image of each value, int64 [N].

    Several values of one image are not independent: the standard error is that of clustered samples, with images as
    clusters. With one value per image it is s / sqrt(N).
    """
    mean = float(values.mean())
    sums = _cluster_sums(values - mean, images)
    if len(sums) == 1:
        return Estimate(mean, math.nan, math.nan)
    error = math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / len(values)
    return Estimate(mean, mean - Z * error, mean + Z * error)


def share_estimate(values: NDArray[np.bool_], images: NDArray[np.int64]) -> Estimate:
    """The share of true values [N] and Wilson's interval. images: the image of each value, int64 [N].

    With several values per image, N is replaced by the effective number of independent values: share (1 - share) / the
    variance of the share with images as clusters (Franco et al., J. Surv. Stat. Methodol. 2019), at most N; the number
    of images if all values are equal.
    """
    share, count = float(values.mean()), len(values)
    sums = _cluster_sums(values.astype(np.float64) - share, images)
    variance = float(sums @ sums) / count**2
    effective = min(float(count), share * (1 - share) / variance) if variance > 0 else float(len(sums))
    return Estimate(share, *wilson_interval(share, effective))


def _cluster_sums(values: NDArray[np.float64], images: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of the values [N] of each image, one for each different image."""
    _, cluster = np.unique(images, return_inverse=True)
    return np.bincount(cluster, values).astype(np.float64)


def measure(table: ViewTable) -> Measures:
    """The measures of all rows of `table`, which has at least one."""
    return Measures(
        len(table),
        len(np.unique(table.image)),
        mean_estimate(table.label_prob, table.image).within(1),
        mean_estimate(table.entropy, table.image).within(math.inf),
        share_estimate(table.agrees, table.image),
        share_estimate(~table.in_top_k, table.image),
    )


def op_curves(table: ViewTable, design: Design) -> dict[str, list[CurvePoint]]:
    """For each op alone that has views, its measures at each level."""
    of_ops = table[table.kind == Kind.OP]
    curves: dict[str, list[CurvePoint]] = {}
    for position, op in enumerate(design.ops):
        of_op = of_ops[of_ops.op == position]
        if len(of_op):
            curves[op] = _curve(of_op, design.levels)
    return curves


def policy_curve(table: ViewTable, design: Design) -> list[CurvePoint]:
    """The measures of the policy's views at each magnitude. For a policy without one: at each of up to seven groups of
    about equally many views, by planned magnitude."""
    views = table[table.kind == Kind.POLICY]
    if design.magnitudes:
        return _curve(views, design.magnitudes)
    strength = views.planned_magnitude
    edges = np.unique(np.quantile(strength, np.arange(1, _STRENGTH_BINS) / _STRENGTH_BINS))
    group = np.searchsorted(edges, strength, side="left")
    return [
        CurvePoint(float(strength[group == each].mean()), measure(views[group == each])) for each in np.unique(group)
    ]


def _curve(table: ViewTable, levels: Sequence[float]) -> list[CurvePoint]:
    return [
        CurvePoint(level, measure(table[table.magnitude == level]))
        for level in levels
        if (table.magnitude == level).any()
    ]


def own_views(table: ViewTable, design: Design) -> NDArray[np.bool_]:
    """Which rows are views under the recipe's own policy, at its own magnitude: bool [N]."""
    is_own = np.isnan(table.magnitude) if design.magnitude is None else table.magnitude == design.magnitude
    own: NDArray[np.bool_] = (table.kind == Kind.POLICY) & is_own
    return own


def class_measures(table: ViewTable, design: Design) -> list[ClassMeasures]:
    """The measures of each class under the recipe's own policy, the class whose views lose most first."""
    views, unaugmented = table[own_views(table, design)], table[table.kind == Kind.UNAUGMENTED]
    found = [
        ClassMeasures(
            label,
            float(unaugmented.label_prob[unaugmented.label == label].mean()),
            measure(views[views.label == label]),
        )
        for label in np.unique(views.label).tolist()
    ]
    return sorted(found, key=lambda each: -each.drop)
