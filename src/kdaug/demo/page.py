"""The demonstration's page: one HTML file with everything in it."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.config import to_yaml
from kdaug.inspection import ViewPrediction, predict_views
from kdaug.runs import RunDirectory, read_environment
from kdaug.storage import atomic_write
from kdaug.study.report.curves import curves_svg
from kdaug.supervision import Teacher
from kdaug.training import TrainResult
from kdaug.training.context import TrainContext

SHOWN_VIEWS, CANDIDATE_VIEWS = 12, 240


def write_page(
    path: Path,
    context: TrainContext,
    teacher: Teacher,
    teacher_run: TrainResult,
    label_only: TrainResult,
    with_teacher: TrainResult,
) -> None:
    """Writes the page about three finished runs to `path`; `context` is that of the run with the teacher."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdaug.demo", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    curves = curves_svg({"labels only": label_only.directory, "with the teacher": with_teacher.directory})
    looks = predict_views(context, teacher, epoch=0, candidates=CANDIDATE_VIEWS, shown=SHOWN_VIEWS)
    machine = read_environment(RunDirectory(with_teacher.directory))
    text = environment.get_template("page.html.j2").render(
        recipe=context.recipe,
        recipe_yaml=to_yaml(context.recipe),
        dataset=context.dataset,
        teacher=teacher_run,
        label_only=label_only,
        with_teacher=with_teacher,
        curves=_data_url("image/svg+xml", curves.encode()),
        looks=[_shown(look) for look in looks],
        candidates=CANDIDATE_VIEWS,
        machine=machine,
    )
    atomic_write(path, text)


def _shown(look: ViewPrediction) -> dict[str, Any]:
    return {
        "image": _picture(look.image),
        "view": _picture(look.view),
        "label": look.label,
        "steps": ", ".join(_in_words(step) for step in look.ops) or "unchanged",
        "top": look.top,
        "kept": look.label_prob,
        "plain": look.clean_label_prob,
    }


def _in_words(step: tuple[Any, ...]) -> str:
    """An op as people read it: shear-x 0.31, cutout 9 px, crop +2 -1, flip."""
    name, *given = step
    match name, *given:
        case "cutout", (_, _, side):
            return f"cutout {side:.0f} px"
        case "crop", (left, top, _, _):
            return f"crop {left:+.0f} {top:+.0f}"
        case _, (first, *_):
            return f"{name} {first:.2f}"
        case _, first:
            return f"{name} {first:.2f}"
    return str(name)


def _picture(image: NDArray[np.uint8]) -> str:
    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(out, "PNG")
    return _data_url("image/png", out.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
