"""Makes one view of an inspection again."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image
from rich.console import Console

from kdaug.errors import InputError, printable
from kdaug.inspection.keys import parse_key
from kdaug.inspection.making import make_view
from kdaug.storage import atomic_write
from kdaug.training.context import TrainContext, build_context
from kdaug.training.resolve import read_resolved_recipe
from kdaug.views.description import format_op


def show_view(folder: Path, key: str, out: Path, root: str | None = None) -> str:
    """Writes the view `key` of the inspection in `folder` to the PNG file `out`; returns a description of it.

    root: the directory of the dataset; None: as in the inspection. Raises InputError if there is no such view.
    """
    context = open_inspection(folder, root)
    views = make_view(context, parse_key(key))
    pixels, dataset = views.pixels[0], context.dataset
    png = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(png, "PNG")
    atomic_write(out, png.getvalue())
    name, label = dataset.train.name_of(int(views.indices[0])), dataset.classes[views.labels[0]]
    ops = ", ".join(map(format_op, views.steps(0))) or "unchanged"
    if views.partner_labels is not None and views.own_share is not None:
        partner = printable(dataset.classes[views.partner_labels[0]])
        ops += f", mixed with {partner} ({1 - views.own_share[0]:.0%})"
    return f"image {printable(name)}, label {printable(label)}: {ops}"


def open_inspection(folder: Path, root: str | None = None) -> TrainContext:
    """The recipe and the data of the inspection in `folder`. Raises InputError if it is none."""
    path = folder / "recipe.yaml"
    if not (folder / "views.csv").is_file() or not path.is_file():
        raise InputError(f"{folder} is not the folder of an inspection", "give the --out of kdaug inspect")
    recipe = read_resolved_recipe(path)
    if root is not None:
        recipe = replace(recipe, data=replace(recipe.data, root=root))
    return build_context(recipe, Console(quiet=True))
