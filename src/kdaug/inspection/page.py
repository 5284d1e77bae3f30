"""index.html of an inspection: one page that needs no other file."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from kdaug.config import to_yaml
from kdaug.errors import printable
from kdaug.inspection.figures import curve_figure
from kdaug.inspection.keys import ViewKey
from kdaug.inspection.label_errors import LabelError
from kdaug.inspection.making import Views, make_all
from kdaug.inspection.measures import (
    ClassMeasures,
    CurvePoint,
    Estimate,
    class_measures,
    measure,
    op_curves,
    own_views,
    policy_curve,
)
from kdaug.inspection.pictures import PictureBudget, picture_url
from kdaug.inspection.selection import select_outliers, unaugmented_label_probs
from kdaug.inspection.shown_soft_labels import soft_label_probs
from kdaug.inspection.table import Kind, teacher_logits
from kdaug.inspection.teacher_data import trained_on_training_images
from kdaug.storage import atomic_write
from kdaug.study.report.evaluation_figures import to_svg_with_names
from kdaug.study.report.page import data_url, render_template
from kdaug.study.report.tables import Table
from kdaug.supervision import AnyTeacher
from kdaug.training.context import TrainContext
from kdaug.training.evaluation import evaluation_batch
from kdaug.training.view_measures import recognition_k
from kdaug.views.contact_sheet import op_level_views
from kdaug.views.description import format_argument, format_op

if TYPE_CHECKING:
    from kdaug.inspection.run import Inspection

SHOWN_VIEWS, SHOWN_ERRORS = 300, 48
MANY_ERRORS = 0.2
"""Share of the images above which a list of label errors says more about the teacher."""
BARS = 5
"""Classes whose probability is shown for a view."""
_SIDE, _SHEET_SIDE = 192, 96
"""Largest side in pixels of pictures, and of those in the contact sheet."""
_VIEWS_BYTES, _ERRORS_BYTES, _SHEET_BYTES = 12_000_000, 1_500_000, 3_000_000
"""Limits of all pictures of a kind, as URLs. The rest of the page has a few hundred kilobytes."""


def write_page(
    context: TrainContext, teacher: AnyTeacher, inspection: Inspection, errors: Sequence[LabelError], out: Path
) -> None:
    """Writes index.html to the folder `out`. errors: the likely label errors. All names from disk are escaped."""
    table, design, names = inspection.table, inspection.design, _class_names(context)
    images = table.image[table.kind == Kind.UNAUGMENTED]
    outliers = select_outliers(
        table, design, SHOWN_VIEWS, images[[error.position for error in errors[:SHOWN_ERRORS]]].tolist()
    )
    script = (resources.files("kdaug.inspection") / "page.js").read_text(encoding="utf-8")
    curves, policy_points = op_curves(table, design), policy_curve(table, design)
    classes = class_measures(table, design)
    keys = [table.key(int(row), design.ops) for row in outliers]
    text = render_template(
        "inspection/page.html.j2",
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_as_script_data(_views_data(context, teacher, inspection, keys, names, out)),
        context=context,
        design=design,
        dataset=printable(context.dataset.name),
        source=printable(context.recipe.teacher.source),
        policy=printable(context.recipe.views.policy),
        inspection=inspection,
        views=len(table) - len(images),
        images=len(images),
        own=measure(table[own_views(table, design)]),
        unaugmented=measure(table[table.kind == Kind.UNAUGMENTED]),
        k=recognition_k(context),
        policy_figure=svg_url(curve_figure("", policy_points, len(names), _policy_axis(design.magnitudes), wide=True)),
        op_figures={op: svg_url(curve_figure(op, points, len(names), "level")) for op, points in curves.items()},
        curves_table=_curves_table(curves, policy_points),
        classes_table=_classes_table(classes, names),
        sheet=_contact_sheet(context, inspection, curves),
        errors=_errors_data(context, inspection, errors, names),
        errors_found=len(errors),
        many_errors=len(errors) > MANY_ERRORS * len(images),
        top1_error=float((table.top1 != table.label)[table.kind == Kind.UNAUGMENTED].mean()),
        trained_on_these=trained_on_training_images(context.recipe),
        small=max(context.dataset.size) <= _SHEET_SIDE,
        recipe_yaml=printable_lines(to_yaml(context.recipe)),
        command=_show_command(out, ViewKey(int(images[0]), design.epochs[0], design.magnitude)),
    )
    atomic_write(out / "index.html", text)


def printable_lines(text: str) -> str:
    """`printable` for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def _class_names(context: TrainContext) -> list[str]:
    return [printable(name) for name in context.dataset.classes]


def _policy_axis(magnitudes: Sequence[float]) -> str:
    return "magnitude of the policy" if magnitudes else "mean planned magnitude of the views"


def svg_url(figure: Figure) -> str:
    """A URL that contains the figure as SVG."""
    return data_url("image/svg+xml", to_svg_with_names(figure))


def _as_script_data(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that contains it."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _show_command(out: Path, key: ViewKey) -> str:
    return printable(f"kdaug inspect show {shlex.quote(str(out))} {key} --out view.png")


def _views_data(
    context: TrainContext,
    teacher: AnyTeacher,
    inspection: Inspection,
    keys: Sequence[ViewKey],
    names: Sequence[str],
    out: Path,
) -> dict[str, Any]:
    """The views for the page's script: pictures, ops and predictions; as many as fit."""
    budget, pictures, shown = PictureBudget(_VIEWS_BYTES), dict[int, str](), list[dict[str, Any]]()
    before = unaugmented_label_probs(inspection.table)
    at_once = evaluation_batch(context)
    for start in range(0, len(keys), at_once):
        part = keys[start : start + at_once]
        made = make_all(context, [*part, *(ViewKey(key.image) for key in part)])
        bars = _bars(context, teacher, [made[key] for key in part], names)
        for key, of_view in zip(part, bars, strict=True):
            image, view = (picture_url(made[each].pixels[0], _SIDE) for each in (ViewKey(key.image), key))
            if not budget.take(view, *([] if key.image in pictures else [image])):
                return {"names": list(names), "pictures": pictures, "views": shown}
            pictures[key.image] = image
            shown.append(
                {
                    "key": str(key),
                    "command": _show_command(out, key),
                    "image": key.image,
                    "name": printable(context.dataset.train.name_of(key.image)),
                    "view": view,
                    "label": int(made[key].labels[0]),
                    "before": round(float(before[key.image]), 6),
                    "setting": "single op" if key.op else _setting(inspection, key),
                    "magnitude": key.level if key.op else key.magnitude,
                    "ops": _op_names(made[key]),
                    "text": _describe_ops(made[key], names),
                    **of_view,
                }
            )
    return {"names": list(names), "pictures": pictures, "views": shown}


def _setting(inspection: Inspection, key: ViewKey) -> str:
    return "policy" if key.magnitude == inspection.design.magnitude else "policy at another magnitude"


def _bars(
    context: TrainContext, teacher: AnyTeacher, views: Sequence[Views], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The teacher's probability of the label of each view, and its most probable classes with their soft labels."""
    import torch

    labels = np.concatenate([view.labels for view in views])
    pixels, indices = np.concatenate([view.pixels for view in views]), np.concatenate([view.indices for view in views])
    logits = teacher_logits(context, teacher, pixels, indices)
    probs = logits.double().softmax(1).cpu().numpy()
    on_device = torch.from_numpy(labels).to(logits.device)
    soft = soft_label_probs(logits, context.recipe.supervision, on_device).cpu().numpy()
    found = []
    for label, prob, soft_label in zip(labels.tolist(), probs, soft, strict=True):
        top = np.argsort(-prob, kind="stable")[:BARS].tolist()
        classes = top if label in top else [*top, label]
        bars = [[each, round(float(prob[each]), 4), round(float(soft_label[each]), 4)] for each in classes]
        found.append({"prob": round(float(prob[label]), 6), "bars": bars})
    return found


def _op_names(views: Views) -> list[str]:
    """The names of the ops of a view, those in chains of AugMix included."""
    names = list[str]()
    for name, *arguments in views.steps(0):
        if name == "augmix":
            names += [step[0] for _, steps in arguments[0] for step in steps]
        names.append(name)
    return sorted(set(names))


def _describe_ops(views: Views, names: Sequence[str]) -> str:
    parts = [format_op(step) for step in views.steps(0)]
    if views.partner_labels is not None and views.own_share is not None:
        parts.append(f"mixed with {names[views.partner_labels[0]]} ({1 - views.own_share[0]:.0%})")
    return ", ".join(parts) or "unchanged"


def _errors_data(
    context: TrainContext, inspection: Inspection, errors: Sequence[LabelError], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The likely label errors for the template, as many as fit."""
    images = inspection.table.image[inspection.table.kind == Kind.UNAUGMENTED]
    budget, shown = PictureBudget(_ERRORS_BYTES), list[dict[str, Any]]()
    made = make_all(context, [ViewKey(int(images[error.position])) for error in errors[:SHOWN_ERRORS]])
    for error in errors[:SHOWN_ERRORS]:
        image = int(images[error.position])
        url = picture_url(made[ViewKey(image)].pixels[0], _SIDE)
        if not budget.take(url):
            break
        shown.append(
            {
                "url": url,
                "name": printable(context.dataset.train.name_of(image)),
                "label": names[error.label],
                "suggested": names[error.suggested],
                "label_prob": error.label_prob,
                "suggested_prob": error.suggested_prob,
            }
        )
    return shown


def _contact_sheet(
    context: TrainContext, inspection: Inspection, curves: Mapping[str, Sequence[CurvePoint]]
) -> dict[str, Any] | None:
    """Ops by level for the template: pictures, arguments and the mean probability of the label; None if too large.

    Each row shows another image: those that the teacher is most certain of, of different classes where possible.
    """
    design, size = inspection.design, context.dataset.size
    keys = [ViewKey(image) for image in _clear_images(inspection, len(design.ops))]
    made = make_all(context, keys)
    cells = op_level_views(
        design.space, design.ops, design.levels, [made[key].pixels[0] for key in keys], context.dataset.fill
    )
    urls = [[picture_url(cell, _SHEET_SIDE) for cell in row] for row in cells]
    if not PictureBudget(_SHEET_BYTES).take(*(url for row in urls for url in row)):
        return None
    rows = []
    for op, row in zip(design.ops, urls, strict=True):
        probs = {point.level: point.measures.label_prob.value for point in curves.get(op, [])}
        cells_of_op = [
            {"url": url, "argument": format_argument(design.space, op, level, size), "prob": probs.get(level)}
            for level, url in zip(design.levels, row[1:], strict=True)
        ]
        rows.append({"op": op, "unchanged": row[0], "cells": cells_of_op})
    return {"levels": [f"{level:g}" for level in design.levels], "rows": rows}


def _clear_images(inspection: Inspection, count: int) -> list[int]:
    table = inspection.table[inspection.table.kind == Kind.UNAUGMENTED]
    order = np.argsort(-table.label_prob, kind="stable")
    _, first = np.unique(table.label[order], return_index=True)
    best: list[int] = table.image[order[np.sort(first)]][:count].tolist()
    return best


def _curves_table(curves: Mapping[str, Sequence[CurvePoint]], policy: Sequence[CurvePoint]) -> Table:
    rows = tuple(
        (
            name, f"{point.level:.3g}", _share(point.measures.label_prob), _number(point.measures.entropy),
            _share(point.measures.agreement), _share(point.measures.past), f"{point.measures.views:,}",
        )
        for name, points in {"policy": policy, **curves}.items()
        for point in points
    )  # fmt: skip
    header = (
        "policy or op", "magnitude or level", "probability of the label, %", "entropy, nats", "top-1 as unaugmented, %",
        "past recognition, %", "views",
    )  # fmt: skip
    return Table("All measures", header, 1, rows)


def _classes_table(classes: Sequence[ClassMeasures], names: Sequence[str]) -> Table:
    rows = tuple(
        (
            names[each.label], f"{-100 * each.drop:+.1f}", _share(each.measures.label_prob),
            f"{100 * each.unaugmented:.1f}", _share(each.measures.past), _share(each.measures.agreement),
            f"{each.measures.views:,}",
        )
        for each in classes
    )  # fmt: skip
    header = (
        "class", "change, points", "probability of the label, %", "unaugmented, %", "past recognition, %",
        "top-1 as unaugmented, %", "views",
    )  # fmt: skip
    return Table("Classes", header, 1, rows)


def _share(estimate: Estimate) -> str:
    return _interval(100 * estimate.value, 100 * estimate.low, 100 * estimate.high, 1)


def _number(estimate: Estimate) -> str:
    return _interval(estimate.value, estimate.low, estimate.high, 2)


def _interval(value: float, low: float, high: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text if math.isnan(low) else f"{text} [{low:.{digits}f}, {high:.{digits}f}]"
