"""The page of the demonstration: one HTML file that needs no other file."""

from __future__ import annotations

from typing import Any

from kdaug.config import to_yaml
from kdaug.demo.result import DemoResult
from kdaug.inspection import ViewPrediction, predict_views
from kdaug.runs import RunDirectory, read_environment
from kdaug.storage import atomic_write
from kdaug.study.report.curves import Curve, curves_figure
from kdaug.study.report.page import data_url, png_url, render_template
from kdaug.study.report.plotting import to_svg
from kdaug.supervision import AnyTeacher
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import evaluate_split
from kdaug.training.progress import progress_bar
from kdaug.views.description import format_op

SHOWN_VIEWS, CANDIDATE_VIEWS = 12, 240
INSPECTION = "inspection"
"""Folder of the inspection, beside the page."""
COLORS = "#57534e", "#c2410c", "#1d4ed8"
"""Of the curves: plain, with strong augmentation, with the teacher in addition."""


def write_page(result: DemoResult, context: TrainContext, teacher: AnyTeacher) -> None:
    """Writes the page about `result` to `result.page`. context: that of the run with the teacher."""
    figure = curves_figure(
        [
            Curve(name, [run.directory], {"color": color})
            for (name, run), color in zip(result.runs.items(), COLORS, strict=True)
        ]
    )
    with progress_bar(context.console) as bar:
        teacher_error = evaluate_split(context, teacher, bar, "teacher").top1_error
    predictions = predict_views(context, teacher, epoch=0, candidates=CANDIDATE_VIEWS, shown=SHOWN_VIEWS)
    text = render_template(
        "demo/page.html.j2",
        result=result,
        teacher_error=teacher_error,
        teacher_parameters=sum(each.numel() for each in teacher.parameters()),  # frozen
        recipe=context.recipe,
        recipe_yaml=to_yaml(context.recipe),
        dataset=context.dataset,
        curves=data_url("image/svg+xml", to_svg(figure)),
        views=[_template_values(prediction) for prediction in predictions],
        candidates=CANDIDATE_VIEWS,
        environment=read_environment(RunDirectory(result.with_teacher.directory)),
        inspection=f"{INSPECTION}/index.html",
    )
    atomic_write(result.page, text)


def _template_values(prediction: ViewPrediction) -> dict[str, Any]:
    shown_names = [name for name, _ in prediction.top]
    of_label = [] if prediction.label in shown_names else [(prediction.label, prediction.label_prob)]
    mixed = [] if prediction.mixed_with is None else ["mixed with {} ({:.0%})".format(*prediction.mixed_with)]
    return {
        **vars(prediction),
        "image": png_url(prediction.image),
        "view": png_url(prediction.view),
        "bars": [*prediction.top, *of_label],
        "ops": ", ".join([*map(format_op, prediction.ops), *mixed]) or "unchanged",
    }
