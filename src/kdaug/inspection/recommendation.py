"""Recommends a magnitude and K from a teacher's predictions for views, without training a student."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from kdaug.config import Recipe
from kdaug.data.main_guard import exit_if_spawned_worker
from kdaug.errors import InputError
from kdaug.inspection.evidence import (
    Evidence,
    EvidenceRequest,
    MeasuredViews,
    check_counts,
    measure_magnitudes,
    recommended_magnitudes,
)
from kdaug.inspection.teacher_data import trained_on_validation_images
from kdaug.storage import check_writable_folder
from kdaug.study.report.tables import Table
from kdaug.training.batches import dataset_fingerprint
from kdaug.training.context import TrainContext, build_context
from kdaug.training.evaluation import unaugmented_entropy
from kdaug.training.loop import get_or_train_teacher
from kdaug.training.progress import console_logging
from kdaug.training.resolve import resolve
from kdaug.training.view_measures import recognition_k
from kdaug.views.policies import MagnitudeFactors, factors_from_entropy, write_factors

_logger = logging.getLogger(__name__)
LEAST_TRUST = 0.9
"""Mean label trust that the views of the recommended magnitude have at least; fitted, see docs/inspection.md."""
MOST_PAST = 0.5
"""Share of views past recognition above which the teacher is too weak."""
_LEAST_SPREAD = 0.05
"""Between a tenth and nine tenths of the magnitude factors: with less, they are as good as one magnitude for all."""
_RUNS = Path("runs")


@dataclass(frozen=True)
class Recommendation:
    """The recommended magnitude of the policy and K, and why.

    measured: the measures at every magnitude. warnings: why the recommendation may be wrong. context: of the recipe.
    """

    magnitude: float
    k: int
    measured: MeasuredViews
    warnings: tuple[str, ...]
    context: TrainContext

    def as_dict(self) -> dict[str, Any]:
        """For programs: magnitude, k, evidence (a dict per magnitude, see `Evidence`) and warnings."""
        return {
            "magnitude": self.magnitude,
            "k": self.k,
            "evidence": [asdict(each) for each in self.measured.evidence],
            "warnings": list(self.warnings),
        }


def recommend(
    recipe: Recipe, request: EvidenceRequest, console: Console, out: Path | None = None, per_image: Path | None = None
) -> Recommendation:
    """Recommends the magnitude of the recipe's policy, and K, for training with the recipe's teacher.

    A teacher with source "train" is trained first. out: folder for a page with the evidence; None: no page. per_image:
    file for `views.magnitude_factors`, from the teacher's entropy for each training image. Raises InputError for what
    the user can fix.
    """
    exit_if_spawned_worker()
    with console_logging(console):
        if recipe.teacher.source == "none":
            raise InputError(
                "a recommendation needs a teacher, but teacher.source is none",
                "set teacher.source to run:DIR, file:PATH, timm:NAME or train",
            )
        if recipe.views.magnitude_factors is not None:
            raise InputError(
                "views.magnitude_factors is set, but a recommendation measures validation images, which have none",
                "leave it out",
            )
        if out is not None:
            check_page_folder(out)
        if per_image is not None:
            check_writable_folder(per_image.parent)
        context = build_context(resolve(_with_directory(recipe)), console)
        recommended_magnitudes(context, request.magnitudes)  # for its errors, before a teacher is trained
        check_counts(context, request)
        teacher = get_or_train_teacher(context, Path(context.recipe.run.dir))
        measured = measure_magnitudes(context, teacher, request)
        best, reason = choose_magnitude(measured.evidence)
        weak = teacher_warning(best, recognition_k(context))
        warnings = tuple(filter(None, (weak, reason, *data_warnings(context, measured))))
        for warning in warnings:
            _logger.warning(warning)
        recommendation = Recommendation(best.magnitude, best.k, measured, warnings, context)
        if out is not None:
            from kdaug.inspection.recommendation_page import write_recommendation_page  # matplotlib is slow to import

            write_recommendation_page(recommendation, out)
        if per_image is not None:
            entropy = unaugmented_entropy(context, teacher).numpy()
            factors = factors_from_entropy(entropy, len(context.dataset.classes))
            describe_factors(factors)
            write_factors(MagnitudeFactors(factors, dataset_fingerprint(context).data), per_image)
    return recommendation


def describe_factors(factors: NDArray[np.float64]) -> None:
    """Logs the distribution of the factors, with a warning if they hardly differ."""
    low, middle, high = np.quantile(factors, (0.1, 0.5, 0.9))
    _logger.info(f"factors of the magnitude: median {middle:.2f}, a tenth below {low:.2f}, a tenth above {high:.2f}")
    if high - low < _LEAST_SPREAD:
        _logger.warning(
            "the factors hardly differ between the images: the teacher is equally sure of all of them, such as images "
            "that it was trained on; use a teacher that was trained on other images, or teacher.folds"
        )


def check_page_folder(out: Path) -> None:
    """Raises InputError if `out` exists and has more than a page."""
    if out.is_dir() and {path.name for path in out.iterdir()} - {"index.html"}:
        raise InputError(f"{out} has other files than a recommendation's page", "choose another folder")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is not a folder", "choose another one")


def choose_magnitude(evidence: Sequence[Evidence], least_trust: float = LEAST_TRUST) -> tuple[Evidence, str]:
    """The magnitude with the lowest T. stddev among those whose mean label trust is at least `least_trust`.

    Without the condition, the lowest T. stddev is that of a policy that greys every image: the teacher predicts the
    same for all of them. If no magnitude meets it, the one with the highest trust is chosen, and the second value says
    why; else it is empty.
    """
    trusted = [each for each in evidence if each.trust.value >= least_trust]
    if not trusted:
        mildest = max(evidence, key=lambda each: each.trust.value)
        return mildest, (
            f"at every magnitude the teacher recognizes too little: the label trust is {mildest.trust.value:.2f} at "
            f"best, below {least_trust:g}; the mildest is recommended, a milder policy or another teacher may be better"
        )
    return min(trusted, key=lambda each: (each.t_stddev, -each.magnitude)), ""


def teacher_warning(best: Evidence, k: int) -> str:
    """Why the teacher cannot judge the views at the recommended magnitude; empty if it can.

    A teacher that knows little predicts much the same for a view and for the unaugmented image, which is a high trust.
    """
    if best.past.value <= MOST_PAST:
        return ""
    return (
        f"the teacher is too weak for a recommendation: for {best.past.value:.0%} of the views at the recommended "
        f"magnitude, the label is not among its {k} most probable classes; train it for longer or use another one"
    )


def data_warnings(context: TrainContext, measured: MeasuredViews) -> list[str]:
    """Why the images that were measured may be the wrong ones."""
    found = []
    if trained_on_validation_images(context.recipe):
        found.append(
            "the teacher may have been trained on images that it judges here, because its recipe splits the dataset "
            "in another way; it then recognizes too much, and the recommended magnitude is too large"
        )
    if measured.unreadable:
        found.append(f"{measured.unreadable:,} image(s) cannot be read and were left out")
    return found


def evidence_table(recommendation: Recommendation) -> Table:
    """A row per magnitude; the recommended one is marked."""
    k = recognition_k(recommendation.context)
    header = (
        "magnitude", "choice", f"past recognition (K = {k}), %", "T. stddev, 1e-3", "label trust",
        "classes with 95 % of the mass", "views",
    )  # fmt: skip
    rows = tuple(
        (
            f"{each.magnitude:g}", "recommended" if each.magnitude == recommendation.magnitude else "",
            f"{100 * each.past.value:.1f} [{100 * each.past.low:.1f}, {100 * each.past.high:.1f}]",
            f"{1000 * each.t_stddev:.2f}",
            f"{each.trust.value:.3f} [{each.trust.low:.3f}, {each.trust.high:.3f}]",
            str(each.k), f"{each.views:,}",
        )
        for each in recommendation.measured.evidence
    )  # fmt: skip
    return Table("Evidence", header, 2, rows)


def _with_directory(recipe: Recipe) -> Recipe:
    """The recipe with a run.dir: a teacher is trained in a folder next to it, which `kdaug train` then uses too."""
    if recipe.run.dir is not None:
        return recipe
    return replace(recipe, run=replace(recipe.run, dir=str(_RUNS / "recommend")))
