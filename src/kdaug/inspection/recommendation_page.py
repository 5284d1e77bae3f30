"""index.html of a recommendation: the evidence as a plot and a table, one page that needs no other file."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from kdaug.config import to_yaml
from kdaug.errors import printable
from kdaug.inspection.evidence import MASS, VIEWS_PER_DRAW
from kdaug.inspection.figures import draw_estimates
from kdaug.inspection.measures import Estimate
from kdaug.inspection.page import printable_lines, svg_url
from kdaug.inspection.recommendation import LEAST_TRUST, Recommendation, evidence_table
from kdaug.storage import atomic_write
from kdaug.study.report.page import render_template
from kdaug.study.report.plotting import style_axes
from kdaug.training.view_measures import recognition_k


def write_recommendation_page(recommendation: Recommendation, out: Path) -> None:
    """Writes index.html to the folder `out`. All names from disk are escaped."""
    context = recommendation.context
    text = render_template(
        "inspection/recommendation.html.j2",
        dataset=printable(context.dataset.name),
        source=printable(context.recipe.teacher.source),
        policy=printable(context.recipe.views.policy),
        magnitude=f"{recommendation.magnitude:g}",
        k=recommendation.k,
        measured=recommendation.measured,
        warnings=[printable(warning) for warning in recommendation.warnings],
        figure=svg_url(evidence_figure(recommendation)),
        table=evidence_table(recommendation),
        least_trust=f"{LEAST_TRUST:g}",
        mass=f"{100 * MASS:g}",
        views_per_draw=VIEWS_PER_DRAW,
        recognition_k=recognition_k(context),
        recipe_yaml=printable_lines(to_yaml(context.recipe)),
    )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "index.html", text)


def evidence_figure(recommendation: Recommendation) -> Figure:
    """The measures over magnitude, all from 0 to 1: T. stddev is divided by the largest."""
    evidence = recommendation.measured.evidence
    magnitudes = [each.magnitude for each in evidence]
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    draw_estimates(axes, magnitudes, [each.trust for each in evidence], "#1d4ed8", "-", "label trust")
    draw_estimates(axes, magnitudes, [each.past for each in evidence], "#b91c1c", "-.", "past recognition")
    spreads = [each.t_stddev for each in evidence]
    largest = max(spreads) or 1
    draw_estimates(
        axes, magnitudes, [Estimate(each, each, each) for each in spreads], "#7c3aed", "--",
        "T. stddev / largest", largest,
    )  # fmt: skip
    axes.axhline(LEAST_TRUST, color="#57534e", ls=":", lw=1)
    axes.axvline(recommendation.magnitude, color="#57534e", ls=":", lw=1)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("magnitude of the policy", fontsize=9)
    axes.tick_params(labelsize=8)
    style_axes(axes)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
