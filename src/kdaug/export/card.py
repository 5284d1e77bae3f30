"""The model card of an exported network: how to use it, how it was trained, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml

from kdaug.config import Recipe, split_source, to_dict, to_yaml, with_settings
from kdaug.export.check import Comparison
from kdaug.export.reference import Reference
from kdaug.export.source import ExportSource
from kdaug.export.summary import has_teacher, run_summary
from kdaug.export.timm_folder import WEIGHTS_NAME, network_module

LICENSE_LINE = "license: unknown  # FILL IN: the license of these weights, such as apache-2.0"
"""The placeholder in the header of the card. The hub accepts `unknown` as a value."""


def model_card(source: ExportSource, reference: Reference, comparison: Comparison, repository: str | None) -> str:
    """The README.md of the exported folder. repository: OWNER/NAME to load it from; None: a placeholder."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kdaug.export", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown, not HTML
    )
    info, run = source.info, source.run
    return environment.get_template("model_card.md.j2").render(
        license_line=LICENSE_LINE,
        header=_header(source),
        title=repository.partition("/")[2] if repository else _name(source),
        repository=repository or "OWNER/NAME",
        info=info,
        classes=", ".join(_code(name) for name in info.classes),
        parameters=sum(parameter.numel() for parameter in source.network.parameters()),
        pillow_mode="L" if len(info.mean) == 1 else "RGB",
        crop_fraction=source.crop_fraction,
        weights_name=WEIGHTS_NAME,
        module=network_module(source),
        summary=None if run is None else run_summary(source, run, reference.dataset),
        recipe="" if run is None else to_yaml(shareable(run.recipe)),
        comparison=comparison,
    )


def _name(source: ExportSource) -> str:
    path = source.path.absolute()
    return path.stem if source.run is None else path.name


def _header(source: ExportSource) -> str:
    """The YAML at the top of the card, without the license."""
    tags = ["image-classification", "timm", "kdaug"]
    if source.run is not None and has_teacher(source.run.recipe):
        tags.append("knowledge-distillation")
    return yaml.safe_dump({"library_name": "timm", "pipeline_tag": tags[0], "tags": tags}, sort_keys=False)


def _code(text: str) -> str:
    """`text` as code in Markdown. Between two backticks, one is text."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _without_folder(source: str) -> str:
    """A path, or run:PATH or the like, with an absolute path shortened to its last part."""
    kind, colon, path = source.rpartition(":")
    return kind + colon + Path(path).name if Path(path).is_absolute() else source


def shareable(recipe: Recipe) -> Recipe:
    """`recipe` without run.dir, and with absolute paths shortened to their last part: they are of this machine."""
    changed: dict[str, Any] = {}
    for section, settings in to_dict(recipe).items():
        for name, value in settings.items():
            if isinstance(value, str):
                shared = ",".join(map(_without_folder, split_source(value)))
                changed |= {f"{section}.{name}": shared} if shared != value else {}
    return with_settings(recipe, {**changed, "run.dir": None}, "recipe")
