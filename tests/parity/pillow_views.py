"""The definition of each op in Pillow. The kernels must give the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from kdaug.views.ops import NAMES
from kdaug.views.plan import ViewPlan

Fill = int | tuple[int, ...]
Arguments = NDArray[np.float64]

_PILLOW_RESAMPLE = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


def view_of(image: NDArray[np.uint8], plan: ViewPlan, row: int) -> NDArray[np.uint8]:
    """Applies the steps of row `row` of `plan` to an image uint8 [H,W,C]; returns uint8 [H',W',C]."""
    channels = image.shape[2]
    view = Image.fromarray(image[..., 0] if channels == 1 else image)
    for step in np.flatnonzero(plan.op[row]):
        color = plan.fill[row, step].tolist()
        fill = color[0] if channels == 1 else tuple(color)
        resample = _PILLOW_RESAMPLE[plan.resample[row, step]]
        view = _OPERATIONS[NAMES[plan.op[row, step]]](view, plan.argument[row, step], fill, resample)
    return np.asarray(view).reshape(view.height, view.width, channels)


def _affine(image: Image.Image, coefficients: tuple[float, ...], fill: Fill, resample: Image.Resampling) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, resample, fillcolor=fill)


def _shear_x(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return _affine(image, (1, a[0], a[1], 0, 1, 0), fill, resample)


def _shear_y(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return _affine(image, (1, 0, 0, a[0], 1, a[1]), fill, resample)


def _translate_x(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return _affine(image, (1, 0, a[0], 0, 1, 0), fill, resample)


def _translate_y(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, a[0]), fill, resample)


def _rotate(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return image.rotate(a[0], resample, fillcolor=fill)


def _autocontrast(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return ImageOps.autocontrast(image)


def _invert(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return ImageOps.invert(image)


def _equalize(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return ImageOps.equalize(image)


def _solarize(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    """Inverts values at or above the threshold; a threshold of 256 changes nothing."""
    return ImageOps.solarize(image, a[0])


def _solarize_add(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    """Adds to values below 128 and clips to 0..255 (tensorflow/tpu 7dc921f, efficientnet/autoaugment.py)."""
    table = [min(max(int(v + a[0]), 0), 255) if v < 128 else v for v in range(256)]
    return image.point(table * len(image.getbands()))


def _posterize(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    """Keeps the high bits; 0 bits give black (Pillow raises an error), 8 or more change nothing."""
    if a[0] < 1:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, min(int(a[0]), 8))


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    def op(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
        return kind(image).enhance(a[0])

    return op


def _cutout(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return _erase(image, a[[0, 1, 2, 2]], fill, resample)


def _erase(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    x, y, width, height = (int(v) for v in a)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image.width), min(y + height, image.height)
    if left < right and top < bottom:
        image = image.copy()
        image.paste(fill, (left, top, right, bottom))
    return image


def _flip(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _crop(image: Image.Image, a: Arguments, fill: Fill, resample: Image.Resampling) -> Image.Image:
    left, top, width, height = (int(v) for v in a)
    cropped = Image.new(image.mode, (width, height), fill)
    cropped.paste(image, (-left, -top))
    return cropped


Operation = Callable[[Image.Image, Arguments, Fill, Image.Resampling], Image.Image]

_OPERATIONS: dict[str, Operation] = {
    "shear-x": _shear_x,
    "shear-y": _shear_y,
    "translate-x": _translate_x,
    "translate-y": _translate_y,
    "rotate": _rotate,
    "autocontrast": _autocontrast,
    "invert": _invert,
    "equalize": _equalize,
    "solarize": _solarize,
    "posterize": _posterize,
    "contrast": _enhance(ImageEnhance.Contrast),
    "color": _enhance(ImageEnhance.Color),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "cutout": _cutout,
    "solarize-add": _solarize_add,
    "flip": _flip,
    "crop": _crop,
    "erase": _erase,
}
