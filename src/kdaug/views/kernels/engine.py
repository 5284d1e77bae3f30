"""Applies all steps to one image after another, in two buffers that are small enough to stay in the CPU cache."""

from __future__ import annotations

import numpy as np

from kdaug.jit import kernel
from kdaug.views.kernels.affine_interpolated import affine_bicubic, affine_bilinear
from kdaug.views.kernels.affine_nearest import affine_nearest
from kdaug.views.kernels.color import brightness, color, contrast, sharpness
from kdaug.views.kernels.memory import SLACK, copy
from kdaug.views.kernels.region import crop, erase, flip
from kdaug.views.kernels.values import autocontrast, equalize, invert, posterize, solarize, solarize_add
from kdaug.views.ops import CODES

_NONE, _ERASE, _CUTOUT, _CROP, _FLIP = (CODES[name] for name in ("none", "erase", "cutout", "crop", "flip"))
_SHEAR_X, _SHEAR_Y, _TRANSLATE_X = (CODES[name] for name in ("shear-x", "shear-y", "translate-x"))
_TRANSLATE_Y, _ROTATE = CODES["translate-y"], CODES["rotate"]
_AUTOCONTRAST, _INVERT, _EQUALIZE = (CODES[name] for name in ("autocontrast", "invert", "equalize"))
_SOLARIZE, _SOLARIZE_ADD, _POSTERIZE = (CODES[name] for name in ("solarize", "solarize-add", "posterize"))
_CONTRAST, _COLOR, _BRIGHTNESS, _SHARPNESS = (CODES[name] for name in ("contrast", "color", "brightness", "sharpness"))


@kernel
def apply_plan(images, op, argument, resample, fill, views, buffer_size, bilinear, bicubic):
    """Applies a plan to `images` uint8 [N,H,W,C] and writes the result to `views` uint8 [N,H',W',C].

    op, argument, resample, fill: as in ViewPlan, but the arguments of rotate are cosine and sine. buffer_size: the
    largest size in bytes of an image between steps. bilinear, bicubic: True if the plan uses the filter, else None. For
    None, numba compiles a version without the branches `if bilinear is not None` and `if bicubic is not None`.
    """
    channels = images.shape[3]
    buffer, other_buffer = np.empty(buffer_size + SLACK, np.uint8), np.empty(buffer_size + SLACK, np.uint8)
    colors = np.empty(buffer_size, np.uint8)
    for i in range(len(images)):
        height, width = images.shape[1], images.shape[2]
        copy(buffer[: height * width * channels], images[i].reshape(-1))
        for step in range(op.shape[1]):
            code, a = op[i, step], argument[i, step]
            if code == _NONE or (height * width == 0 and code != _CROP):
                continue
            source = buffer[: height * width * channels].reshape(height, width * channels)
            if _needs_fill(code):
                _fill_row(colors, max(width, int(a[2])) if code == _CROP else width, channels, fill[i, step])
            if _is_in_place(code):
                _apply_in_place(source, colors, channels, code, a)
                continue
            if code == _CROP:
                height, width = int(a[3]), int(a[2])
            target = other_buffer[: height * width * channels].reshape(height, width * channels)
            _apply_out_of_place(source, target, colors, channels, code, a, resample[i, step], bilinear, bicubic)
            buffer, other_buffer = other_buffer, buffer
        copy(views[i].reshape(-1), buffer)


@kernel
def _is_in_place(code):
    return _AUTOCONTRAST <= code <= _BRIGHTNESS or code in (_SOLARIZE_ADD, _CUTOUT, _ERASE)


@kernel
def _needs_fill(code):
    return _SHEAR_X <= code <= _ROTATE or code in (_CUTOUT, _ERASE, _CROP)


@kernel
def _apply_in_place(image, colors, channels, code, a):
    """Applies op `code` with arguments `a` to `image` uint8 [H,W*C]."""
    pixels = image.reshape(-1)
    if code == _AUTOCONTRAST:
        autocontrast(pixels, image.shape[0], channels)
    elif code == _INVERT:
        invert(pixels)
    elif code == _EQUALIZE:
        equalize(pixels, channels)
    elif code == _SOLARIZE:
        solarize(pixels, a[0])
    elif code == _POSTERIZE:
        posterize(pixels, a[0])
    elif code == _CONTRAST:
        contrast(pixels, channels, a[0])
    elif code == _COLOR:
        color(pixels, channels, a[0])
    elif code == _BRIGHTNESS:
        brightness(pixels, a[0])
    elif code == _SOLARIZE_ADD:
        solarize_add(pixels, a[0])
    elif code == _CUTOUT:
        erase(image, colors, channels, a[0], a[1], a[2], a[2])
    elif code == _ERASE:
        erase(image, colors, channels, a[0], a[1], a[2], a[3])


@kernel
def _apply_out_of_place(source, target, colors, channels, code, a, resample, bilinear, bicubic):
    """Applies op `code` with arguments `a` to `source` and writes the result to `target`, both uint8 [H,W*C]."""
    if code == _SHARPNESS:
        sharpness(source, target, channels, a[0])
    elif code == _FLIP:
        flip(source, target, channels)
    elif code == _CROP:
        crop(source, target, colors, channels, a[0], a[1])
    else:
        matrix = _matrix(code, a, source.shape[0], source.shape[1] // channels)
        if resample == 0:
            affine_nearest(source, target, colors, channels, matrix)
        if bilinear is not None:  # noqa: SIM102  # numba removes the branch only if this is the whole condition
            if resample == 1:
                affine_bilinear(source, target, colors, channels, matrix)
        if bicubic is not None:  # noqa: SIM102
            if resample == 2:
                affine_bicubic(source, target, colors, channels, matrix)


@kernel
def _fill_row(colors, width, channels, fill):
    """Sets the first `width` pixels of `colors` to the fill color."""
    for x in range(width):
        for channel in range(channels):
            colors[x * channels + channel] = fill[channel]


@kernel
def _matrix(code, a, height, width):
    """Pillow's affine coefficients (a, b, c, d, e, f) of a geometric op."""
    if code == _SHEAR_X:
        return 1.0, a[0], a[1], 0.0, 1.0, 0.0
    if code == _SHEAR_Y:
        return 1.0, 0.0, 0.0, a[0], 1.0, a[1]
    if code == _TRANSLATE_X:
        return 1.0, 0.0, a[0], 0.0, 1.0, 0.0
    if code == _TRANSLATE_Y:
        return 1.0, 0.0, 0.0, 0.0, 1.0, a[0]
    cosine, sine = a[0], a[1]  # rotate, about the center
    x, y = width / 2.0, height / 2.0
    return cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y
