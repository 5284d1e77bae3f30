"""Which views the page shows: those that the teacher finds least like their label."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from kdaug.inspection.design import Design
from kdaug.inspection.measures import own_views
from kdaug.inspection.table import Kind, ViewTable

_SHARE_OWN, _MOST_KEPT = 0.5, 0.9


def select_outliers(table: ViewTable, design: Design, count: int, without: Collection[int] = ()) -> NDArray[np.int64]:
    """At most `count` rows with low probabilities of the label: int64 [n], in ascending order of it.

    Only views for which the probability is at most `_MOST_KEPT` of that for the unaugmented image, so that
    augmentation is the reason. Half of them are views under the recipe's own policy. The others are shared equally
    among the other magnitudes and the ops. Within each of these groups, an image occurs at most once. without: images
    to leave out, such as those whose label is likely wrong.
    """
    reduced = table.label_prob <= _MOST_KEPT * unaugmented_label_probs(table)[table.image]
    allowed = (table.kind != Kind.UNAUGMENTED) & reduced & ~np.isin(table.image, list(without))
    own = own_views(table, design)
    groups = [
        (table.kind == Kind.POLICY) & (table.magnitude == magnitude)
        for magnitude in design.magnitudes
        if magnitude != design.magnitude
    ]
    groups += [(table.kind == Kind.OP) & (table.op == op) for op in range(len(design.ops))]
    own_count = round(_SHARE_OWN * count) if groups else count
    chosen = [_lowest(table, own & allowed, own_count)]
    chosen += [_lowest(table, group & allowed, (count - own_count) // len(groups)) for group in groups]
    rows = np.concatenate(chosen)
    return rows[np.argsort(table.label_prob[rows], kind="stable")]


def unaugmented_label_probs(table: ViewTable) -> NDArray[np.float64]:
    """The probability of the label for the unaugmented image, by image; NaN for images that are not in `table`."""
    rows = np.flatnonzero(table.kind == Kind.UNAUGMENTED)
    probs = np.full(table.image.max() + 1, np.nan)
    probs[table.image[rows]] = table.label_prob[rows]
    return probs


def _lowest(table: ViewTable, rows: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """The `count` rows of different images with the lowest probability of the label."""
    candidates = np.flatnonzero(rows)
    ordered = candidates[np.argsort(table.label_prob[candidates], kind="stable")]
    _, first = np.unique(table.image[ordered], return_index=True)
    return ordered[np.sort(first)][:count]
