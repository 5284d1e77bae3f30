"""A contact sheet: one picture of what every op of a space does to an image at several levels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.data.images import ArrayImages
from kdaug.data.sets import load_bundled
from kdaug.errors import InputError
from kdaug.views import apply
from kdaug.views.description import argument_in_words
from kdaug.views.drawing import Dice, Entries
from kdaug.views.plan import Color
from kdaug.views.space import Space

Pixels = NDArray[np.uint8]
_CELL = 112  # pixels of a cell in the picture, at least
_GAP = 26  # below each row, for its captions


def sample_images(count: int, size: int | None) -> list[Pixels]:
    """Bundled images of `count` different classes, uint8 [size,size,3]; None: their own 28 pixels."""
    train = load_bundled().train
    assert isinstance(train, ArrayImages)
    first = [np.flatnonzero(train.labels == label)[0] for label in range(count)]
    return [_sized(Image.fromarray(train.images[row, ..., 0]).convert("RGB"), size) for row in first]


def read_image(path: str | Path, size: int | None) -> Pixels:
    """The image in a file as uint8 [H,W,3], its middle square brought to `size` pixels if that is given."""
    try:
        with Image.open(path) as image:
            opened = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image {path}: cannot be read ({error.__class__.__name__}: {error})") from None
    if size is None:
        return np.asarray(opened)
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
    from matplotlib.figure import Figure

    pairs = [(op, level) for op in ops for level in levels]
    plain = np.stack([images[row % len(images)] for row in range(len(ops))])
    height, width = plain.shape[1:3]
    middle = np.full((len(pairs), 1), 1 << 31, np.uint32)
    dice = Dice(sign=np.zeros_like(middle), x=middle, y=middle, resample=middle)
    plan = Entries(space, pairs, mean).plan(np.arange(len(pairs))[:, None], dice, (height, width))
    views = apply(np.repeat(plain, len(levels), axis=0), plan)
    cells = np.concatenate([plain[:, None], views.reshape(len(ops), len(levels), height, width, 3)], axis=1)

    scale = max(1, round(_CELL / max(height, width)))
    wide, high = width * scale + 8, height * scale + _GAP
    figure = Figure(figsize=((1 + len(levels)) * wide / 100 + 1.3, len(ops) * high / 100 + 0.8), dpi=100)
    axes = figure.add_axes(
        (1.2 / figure.get_figwidth(), 0.1 / figure.get_figheight(),
         (1 + len(levels)) * wide / 100 / figure.get_figwidth(), len(ops) * high / 100 / figure.get_figheight())
    )  # fmt: skip
    axes.set(xlim=(0, (1 + len(levels)) * wide), ylim=(len(ops) * high, 0))
    for row, op in enumerate(ops):
        for column in range(1 + len(levels)):
            left, top = column * wide, row * high
            extent = (left, left + width * scale, top + height * scale, top)
            axes.imshow(cells[row, column], extent=extent, interpolation="nearest")
            caption = "" if column == 0 else argument_in_words(space, op, levels[column - 1], (height, width))
            axes.text(left + width * scale / 2, top + height * scale + 13, caption, ha="center", fontsize=7)
    axes.set(xlim=(0, (1 + len(levels)) * wide), ylim=(len(ops) * high, 0), aspect="auto")
    axes.set_xticks([(column + 0.5) * wide for column in range(1 + len(levels))])
    axes.set_xticklabels(["plain", *(f"{level:g}" for level in levels)])
    axes.set_yticks([row * high + height * scale / 2 for row in range(len(ops))])
    axes.set_yticklabels(list(ops))
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.text(0.5, 1 - 0.22 / figure.get_figheight(), title, ha="center", fontsize=10)
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.__class__.__name__}: {error})") from None


def _sized(image: Image.Image, size: int | None) -> Pixels:
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)
