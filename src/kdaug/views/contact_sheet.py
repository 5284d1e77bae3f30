"""A contact sheet: one picture of what every op of a space does to an image at several levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from kdaug.data.datasets import load_bundled
from kdaug.data.decode import as_rgb
from kdaug.data.images import ArrayImages
from kdaug.errors import InputError
from kdaug.views.apply import apply
from kdaug.views.description import format_argument
from kdaug.views.draw import OpTable, RandomWords
from kdaug.views.plan import Color
from kdaug.views.space import Space

Pixels = NDArray[np.uint8]
_CELL = 112  # pixels of a cell in the picture, at least
_CAPTION, _GAP, _LEFT, _TOP = 26, 8, 120, 70  # below each cell, beside it, left of all, above all


def sample_images(count: int, size: int) -> list[Pixels]:
    """Bundled images of `count` different classes, brought to uint8 [size,size,3]."""
    train = load_bundled().train
    assert isinstance(train, ArrayImages)
    first = [np.flatnonzero(train.labels == label)[0] for label in range(count)]
    return [_sized(Image.fromarray(train.images[row, ..., 0]).convert("RGB"), size) for row in first]


def read_image(path: str | Path, size: int) -> Pixels:
    """The middle square of the image in a file, brought to uint8 [size,size,3]."""
    try:
        with Image.open(path) as image:
            opened = as_rgb(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path}: cannot be read ({error.__class__.__name__}: {error})") from None
    side = min(opened.size)
    left, top = (opened.width - side) // 2, (opened.height - side) // 2
    return _sized(opened.crop((left, top, left + side, top + side)), size)


def contact_sheet(
    space: Space,
    ops: Sequence[str],
    levels: Sequence[float],
    images: Sequence[Pixels],
    mean: Color,
    path: str | Path,
    title: str,
) -> None:
    """Writes a PNG to `path`: a row per op, a column per level, each cell captioned with what was done.

    The rows take the `images` (uint8 [H,W,3], one size) in turn, shown plain in the first column. Signed arguments are
    shown with their positive sign; cutouts at the centre. InputError if the file cannot be written.
    """
    pairs = [(op, level) for op in ops for level in levels]
    plain = np.stack([images[row % len(images)] for row in range(len(ops))])
    height, width = plain.shape[1:3]
    middle = np.full((len(pairs), 1), 1 << 31, np.uint32)
    dice = RandomWords(sign=np.zeros_like(middle), x=middle, y=middle, resample=middle)
    plan = OpTable(space, pairs, mean).plan(np.arange(len(pairs))[:, None], dice, (height, width))
    views = apply(np.repeat(plain, len(levels), axis=0), plan)
    cells = np.concatenate([plain[:, None], views.reshape(len(ops), len(levels), height, width, 3)], axis=1)

    captions = [["", *(format_argument(space, op, level, (height, width)) for level in levels)] for op in ops]
    _draw(cells, captions, list(ops), ["plain", *(f"{level:g}" for level in levels)], title, path)


def _draw(
    cells: Pixels, captions: list[list[str]], rows: list[str], columns: list[str], title: str, path: str | Path
) -> None:
    """Cells uint8 [R,C,H,W,3] as one picture with a caption below each, and the names of its rows and columns."""
    from matplotlib.figure import Figure

    scale = max(1, round(_CELL / max(cells.shape[2:4])))
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    framed = np.pad(cells, ((0, 0), (0, 0), (0, _CAPTION), (0, _GAP), (0, 0)), constant_values=255)
    high, wide = framed.shape[2:4]
    picture = framed.swapaxes(1, 2).reshape(len(rows) * high, len(columns) * wide, 3)

    width, height = picture.shape[1] + _LEFT, picture.shape[0] + _TOP
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((_LEFT / width, 0, 1 - _LEFT / width, 1 - _TOP / height))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    for row, of_row in enumerate(captions):
        for column, caption in enumerate(of_row):
            middle, below = column * wide + (wide - _GAP) / 2, (row + 1) * high - _CAPTION + 13
            axes.text(middle, below, caption, ha="center", fontsize=7)
    axes.set_xticks([column * wide + (wide - _GAP) / 2 for column in range(len(columns))], columns)
    axes.set_yticks([row * high + (high - _CAPTION) / 2 for row in range(len(rows))], rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.text(0.5, 1 - 22 / height, title, ha="center", fontsize=10)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.__class__.__name__}: {error})") from None


def _sized(image: Image.Image, size: int) -> Pixels:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
