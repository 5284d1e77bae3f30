"""Published methods of supervision by one word, supervision.method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kdaug.config.recipe import Method, Supervision
from kdaug.errors import InputError

METHODS: Mapping[Method, Mapping[str, Any]] = {
    "paper": {},
    "robust": {"divergence": "dist", "weight": 3.0, "temperature": 4.0},
    "kd": {"k": None},
    "kd-standardized": {"k": None, "standardize_logits": True, "weight": 9.0, "temperature": 2.0},
    "dkd": {"divergence": "decoupled", "weight": 1.0, "temperature": 4.0},
    "dist": {"divergence": "dist", "weight": 2.0, "temperature": 4.0},
    "ferkd": {"k": None, "temperature": 1.0, "label_weight": 0.0, "label_smoothing": 0.1, "min_confidence": 0.2},
    "hard": {"divergence": "hard", "weight": 0.5, "label_weight": 0.5},
}
"""What each method changes of the paper's supervision (see `with_method`). Sources are in docs/supervision.md."""

_KEPT = ("weight", "k", "temperature", "label_smoothing", "when")
"""Settings that differ between the paper's own recipes; a method that does not name them leaves them."""


def with_method(supervision: Supervision, method: Method) -> Supervision:
    """`supervision` with the settings of `method`.

    Settings that the method does not change are the paper's: weight, k, temperature, label_smoothing and when stay as
    they are, all others get their defaults. Raises InputError for an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"{method!r} is not a method of supervision", f"choose one of {', '.join(METHODS)}")
    kept = {name: getattr(supervision, name) for name in _KEPT}
    return replace(Supervision(), **{**kept, **METHODS[method]})
