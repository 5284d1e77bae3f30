"""The loop over images and steps: each image goes through two scratch buffers that stay in the processor's cache."""

from __future__ import annotations

import numpy as np

from kdaug.views.kernels.affine_interpolated import affine_bicubic, affine_bilinear
from kdaug.views.kernels.affine_nearest import affine_nearest
from kdaug.views.kernels.color import brightness, color, contrast, sharpness
from kdaug.views.kernels.compiler import kernel
from kdaug.views.kernels.memory import SLACK, copy
from kdaug.views.kernels.region import crop, erase, flip
from kdaug.views.kernels.values import autocontrast, equalize, invert, posterize, solarize, solarize_add
from kdaug.views.ops import CODES

_NONE, _ERASE, _CUTOUT, _CROP, _FLIP = (CODES[name] for name in ("none", "erase", "cutout", "crop", "flip"))
_SHEAR_X, _SHEAR_Y, _ROTATE = (CODES[name] for name in ("shear-x", "shear-y", "rotate"))
_TRANSLATE_X, _TRANSLATE_Y = CODES["translate-x"], CODES["translate-y"]
_AUTOCONTRAST, _INVERT, _EQUALIZE = (CODES[name] for name in ("autocontrast", "invert", "equalize"))
_SOLARIZE, _SOLARIZE_ADD, _POSTERIZE = (CODES[name] for name in ("solarize", "solarize-add", "posterize"))
_CONTRAST, _COLOR, _BRIGHTNESS, _SHARPNESS = (CODES[name] for name in ("contrast", "color", "brightness", "sharpness"))


@kernel
def views_of(images, op, argument, resample, fill, views, capacity, bilinear, bicubic):
    """Carries out a plan: `images` uint8 [N,H,W,C] into `views` uint8 [N,H',W',C].

    The plan is that of ViewPlan, but a rotate has cosine and sine as its arguments. `capacity` is the most bytes that
    an image has between steps. `bilinear` and `bicubic` are True, or None for a plan without such steps: the type of
    None is known at compile time, and what it excludes is not compiled.
    """
    channels = images.shape[3]
    scratch, spare = np.empty(capacity + SLACK, np.uint8), np.empty(capacity + SLACK, np.uint8)
    colors = np.empty(capacity, np.uint8)
    for i in range(len(images)):
        height, width = images.shape[1], images.shape[2]
        size = height * width * channels
        copy(scratch[:size], images[i].reshape(-1))
        for step in range(op.shape[1]):
            code, a = op[i, step], argument[i, step]
            if code == _NONE or size == 0 and code != _CROP:
                continue
            if _in_place(code):
                _change(scratch[:size], code, a, height, channels)
                continue
            source = scratch[:size].reshape(height, width * channels)
            if code == _CROP:
                height, width = int(a[3]), int(a[2])
                size = height * width * channels
            target = spare[:size].reshape(height, width * channels)
            if code == _SHARPNESS:
                sharpness(source, target, channels, a[0])
            elif code == _FLIP:
                flip(source, target, channels)
            else:
                _color_row(colors, max(width, source.shape[1] // channels), channels, fill[i, step])
                if code == _CROP:
                    crop(source, target, colors, channels, a[0], a[1])
                elif code == _ERASE:
                    erase(source, colors, channels, a[0], a[1], a[2], a[3])
                    continue
                elif code == _CUTOUT:
                    erase(source, colors, channels, a[0], a[1], a[2], a[2])
                    continue
                else:
                    matrix = _matrix(code, a, height, width)
                    if resample[i, step] == 0:
                        affine_nearest(source, target, colors, channels, matrix)
                    if bilinear is not None:
                        if resample[i, step] == 1:
                            affine_bilinear(source, target, colors, channels, matrix)
                    if bicubic is not None:
                        if resample[i, step] == 2:
                            affine_bicubic(source, target, colors, channels, matrix)
            scratch, spare = spare, scratch
        copy(views[i].reshape(-1), scratch)


@kernel
def _in_place(code):
    """Whether an op changes each value by itself."""
    return _AUTOCONTRAST <= code <= _BRIGHTNESS or code == _SOLARIZE_ADD


@kernel
def _change(pixels, code, a, height, channels):
    """An op that changes values in place; pixels uint8 [H*W*C]."""
    if code == _AUTOCONTRAST:
        autocontrast(pixels, height, channels)
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


@kernel
def _color_row(colors, width, channels, fill):
    """The first `width` pixels of `colors` become the fill colour."""
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
    cosine, sine = a[0], a[1]  # rotate, about the centre
    x, y = width / 2.0, height / 2.0
    return cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y
