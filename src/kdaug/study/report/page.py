"""HTML pages that are one file each: the page of a report, and the base of the demonstration's page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.config import read_recipe, to_yaml
from kdaug.study.report.compare import Group
from kdaug.study.report.plotting import CaptionedFigure
from kdaug.study.report.tables import Table


@dataclass(frozen=True)
class Report:
    """The content of a report, in its order. results: tables, the main one first. json: all of it for programs."""

    title: str
    groups: Sequence[Group]
    results: Sequence[Table]
    notes: Sequence[str]
    figures: Sequence[CaptionedFigure]
    details: Sequence[Table]
    json: Mapping[str, Any]


def report_page(report: Report, svgs: Mapping[str, bytes]) -> str:
    """The HTML page of a report with its figures, given as SVG by name."""
    first = report.groups[0].runs[0]
    return render_template(
        "study/report/page.html.j2",
        report=report,
        urls={name: data_url("image/svg+xml", svg) for name, svg in svgs.items()},
        recipe=to_yaml(read_recipe(first.path / "recipe.yaml")),
        environment=first.environment,
    )


def render_template(name: str, **values: Any) -> str:
    """The template at path `name` inside the package, filled with `values`. All text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdaug", "."), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name).render(values)


def png_url(pixels: NDArray[np.uint8]) -> str:
    """A URL that contains an image, uint8 [H,W,C] with C 1 or 3, as PNG."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, "PNG")
    return data_url("image/png", out.getvalue())


def jpeg_url(pixels: NDArray[np.uint8]) -> str:
    """A URL that contains an image, uint8 [H,W,C] with C 1 or 3, as JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(out, "JPEG", quality=85)
    return data_url("image/jpeg", out.getvalue())


def data_url(media_type: str, content: bytes) -> str:
    """A URL that contains `content`, so that the page needs no other file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
