"""Contact sheets: one picture with every op of a space at several levels."""

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
from kdaug.views.description import format_argument
from kdaug.views.draw_plan import OpTable, RandomWords
from kdaug.views.execution import apply
from kdaug.views.plan import Color
from kdaug.views.space import Space

Pixels = NDArray[np.uint8]
_MIN_CELL = 112  # pixels; smaller images are enlarged by an integer factor
_CAPTION, _GAP, _LEFT, _TOP = 26, 8, 120, 70  # margins in pixels: below and right of each cell, left of and above all


def sample_images(count: int, size: int) -> list[Pixels]:
    """Bundled images of `count` different classes, resized to uint8 [size,size,3]."""
    train = load_bundled().train
    assert isinstance(train, ArrayImages)
    rows = [np.flatnonzero(train.labels == label)[0] for label in range(count)]
    return [_resize(Image.fromarray(train.images[row, ..., 0]).convert("RGB"), size) for row in rows]


def read_image(path: str | Path, size: int) -> Pixels:
    """The center square of an image file, resized to uint8 [size,size,3]. Raises InputError if it cannot be read."""
    try:
        with Image.open(path) as file:
            image = as_rgb(ImageOps.exif_transpose(file))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path}: cannot be read ({error.__class__.__name__}: {error})") from None
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return _resize(image.crop((left, top, left + side, top + side)), size)


def contact_sheet(
    space: Space,
    ops: Sequence[str],
    levels: Sequence[float],
    images: Sequence[Pixels],
    mean: Color,
    path: str | Path,
    title: str,
) -> None:
    """Writes a PNG to `path` with a row per op and a column per level, each cell captioned with the op's argument.

    images: uint8 [H,W,3], all of one size; the rows use them in turn, and the first column shows them unchanged.
    mean: the fill (r, g, b) of spaces that fill with the dataset's mean. Signed arguments are positive, and cutouts are
    at the center. Raises InputError if the file cannot be written.
    """
    cells = op_level_views(space, ops, levels, images, mean)
    height, width = cells.shape[2:4]
    captions = [["", *(format_argument(space, op, level, (height, width)) for level in levels)] for op in ops]
    _draw(cells, captions, list(ops), ["plain", *(f"{level:g}" for level in levels)], title, path)


def op_level_views(
    space: Space, ops: Sequence[str], levels: Sequence[float], images: Sequence[Pixels], mean: Color
) -> Pixels:
    """The cells of a contact sheet: uint8 [ops,1+levels,H,W,C], of which the first column is unchanged.

    images: uint8 [H,W,C], all of one size; the rows use them in turn. Signed arguments are positive, and cutouts are at
    the center.
    """
    pairs = [(op, level) for op in ops for level in levels]
    originals = np.stack([images[row % len(images)] for row in range(len(ops))])
    height, width, channels = originals.shape[1:]
    half = np.full((len(pairs), 1), 1 << 31, np.uint32)
    words = RandomWords(sign=np.zeros_like(half), x=half, y=half, resample=half)
    plan = OpTable(space, pairs, mean).plan(np.arange(len(pairs))[:, None], words, (height, width))
    views = apply(np.repeat(originals, len(levels), axis=0), plan)
    return np.concatenate([originals[:, None], views.reshape(len(ops), len(levels), height, width, channels)], axis=1)


def _draw(
    cells: Pixels, captions: list[list[str]], rows: list[str], columns: list[str], title: str, path: str | Path
) -> None:
    """Draws cells uint8 [R,C,H,W,3] as one picture, with a caption below each, and row and column names."""
    from matplotlib.figure import Figure

    scale = max(1, round(_MIN_CELL / max(cells.shape[2:4])))
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    framed = np.pad(cells, ((0, 0), (0, 0), (0, _CAPTION), (0, _GAP), (0, 0)), constant_values=255)
    cell_height, cell_width = framed.shape[2:4]
    picture = framed.swapaxes(1, 2).reshape(len(rows) * cell_height, len(columns) * cell_width, 3)

    width, height = picture.shape[1] + _LEFT, picture.shape[0] + _TOP
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((_LEFT / width, 0, 1 - _LEFT / width, 1 - _TOP / height))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    centers = [column * cell_width + (cell_width - _GAP) / 2 for column in range(len(columns))]
    for row, row_captions in enumerate(captions):
        for x, caption in zip(centers, row_captions, strict=True):
            axes.text(x, (row + 1) * cell_height - _CAPTION + 13, caption, ha="center", fontsize=7)
    axes.set_xticks(centers, columns)
    axes.set_yticks([row * cell_height + (cell_height - _CAPTION) / 2 for row in range(len(rows))], rows)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.text(0.5, 1 - 22 / height, title, ha="center", fontsize=10)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.__class__.__name__}: {error})") from None


def _resize(image: Image.Image, size: int) -> Pixels:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
