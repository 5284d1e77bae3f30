"""Other augmentation libraries, each with its preferred image format, on one thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdaug.views.plan import Resample

Run = Callable[[], object]

_PILLOW_FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR}


@dataclass(frozen=True)
class ViewWorkload:
    """`images` uint8 [N,H,W,3] to augment, and the filter of the geometric ops."""

    images: NDArray[np.uint8]
    filter: Resample


def use_one_thread() -> None:
    """Limits torch and OpenCV to one thread, and seeds the global generators that the peers use."""
    import random

    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  # timm uses this generator
    try:
        import cv2
    except ImportError:
        return
    cv2.setNumThreads(1)


def _one_by_one(transform: Callable[[Any], Any], images: list[Any]) -> Run:
    return lambda: [transform(image) for image in images]


def _as_pillow(workload: ViewWorkload) -> list[Any]:
    return [Image.fromarray(image) for image in workload.images]


def torchvision_v1(workload: ViewWorkload) -> Run:
    from torchvision.transforms import InterpolationMode, RandAugment

    return _one_by_one(RandAugment(2, 9, interpolation=InterpolationMode(workload.filter)), _as_pillow(workload))


def torchvision_v2_on_pillow(workload: ViewWorkload) -> Run:
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    return _one_by_one(RandAugment(2, 9, interpolation=InterpolationMode(workload.filter)), _as_pillow(workload))


def torchvision_v2_on_tensors(workload: ViewWorkload) -> Run:
    import torch
    from torchvision.transforms.v2 import InterpolationMode, RandAugment

    tensors = list(torch.from_numpy(workload.images).permute(0, 3, 1, 2).contiguous())
    return _one_by_one(RandAugment(2, 9, interpolation=InterpolationMode(workload.filter)), tensors)


def timm_on_pillow(workload: ViewWorkload) -> Run:
    from timm.data.auto_augment import rand_augment_transform

    ops = [
        "AutoContrast", "Equalize", "Rotate", "Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness",
        "ShearX", "ShearY", "TranslateXRel", "TranslateYRel",
    ]  # fmt: skip
    hparams = {"interpolation": _PILLOW_FILTERS[workload.filter]}
    return _one_by_one(rand_augment_transform("rand-m9-n2-p1", hparams, ops), _as_pillow(workload))


def kornia_on_a_batch(workload: ViewWorkload) -> Run:
    import torch
    from kornia.augmentation.auto import RandAugment
    from kornia.constants import Resample as KorniaResample

    ranges = {
        "auto_contrast": (0.0, 1.0), "equalize": (0.0, 1.0), "rotate": (-30.0, 30.0), "posterize": (4.0, 8.0),
        "solarize": (0.0, 1.0), "color": (0.1, 1.9), "contrast": (0.1, 1.9), "brightness": (0.1, 1.9),
        "sharpness": (0.1, 1.9), "shear_x": (-0.3, 0.3), "shear_y": (-0.3, 0.3), "translate_x": (-0.45, 0.45),
        "translate_y": (-0.45, 0.45),
    }  # fmt: skip
    augment = RandAugment(2, 9, policy=[[(name, *ends)] for name, ends in ranges.items()])
    for module in augment.modules():  # RandAugment has no argument for the filter
        flags = getattr(module, "flags", {})
        if "resample" in flags:
            flags["resample"] = KorniaResample.get(workload.filter)
    batch = torch.from_numpy(workload.images).permute(0, 3, 1, 2).contiguous().float() / 255

    def run() -> object:
        with torch.inference_mode():
            return augment(batch)

    return run


def albumentationsx_on_arrays(workload: ViewWorkload) -> Run:
    import albumentations as A

    chosen = A.SomeOf(_albumentations_ops(A, workload), n=2, replace=True, p=1)
    transform = A.Compose([chosen], telemetry=False)
    return _one_by_one(lambda image: transform(image=image)["image"], list(workload.images))


def _albumentations_ops(A: Any, workload: ViewWorkload) -> list[Any]:
    """The transforms closest to torchvision's fourteen ops at M=9."""
    degrees = math.degrees(math.atan(0.09))
    pixels = int(150 / 331 * workload.images.shape[1] * 0.3)
    filter = {"nearest": 0, "bilinear": 1}[workload.filter]  # cv2.INTER_NEAREST, cv2.INTER_LINEAR
    jitter, same = (0.73, 1.27), (1.0, 1.0)
    return [
        A.NoOp(p=1),
        A.Affine(shear={"x": (-degrees, degrees), "y": (0, 0)}, interpolation=filter, p=1),
        A.Affine(shear={"x": (0, 0), "y": (-degrees, degrees)}, interpolation=filter, p=1),
        A.Affine(translate_px={"x": (-pixels, pixels), "y": (0, 0)}, interpolation=filter, p=1),
        A.Affine(translate_px={"x": (0, 0), "y": (-pixels, pixels)}, interpolation=filter, p=1),
        A.Rotate(angle_range=(-9, 9), interpolation=filter, p=1),
        A.ColorJitter(jitter, same, same, (0, 0), p=1),
        A.ColorJitter(same, jitter, same, (0, 0), p=1),
        A.ColorJitter(same, same, jitter, (0, 0), p=1),
        A.Sharpen(alpha_range=(0, 0.27), lightness_range=(1, 1), p=1),
        A.Posterize(num_bits=(7, 7), p=1),
        A.Solarize(threshold_range=(0.7, 0.7), p=1),
        A.AutoContrast(method="pil", p=1),
        A.Equalize(mode="pil", p=1),
    ]
