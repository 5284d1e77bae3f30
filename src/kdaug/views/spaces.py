"""What a level or magnitude means: for each op, the argument at level 0 and at the full level, as each system has it.

Spaces are tables to be checked with a finger on their sources; how they are read is in `space`.
"""

from __future__ import annotations

from dataclasses import replace

from kdaug.errors import InputError, nearest
from kdaug.views.space import Range, Space

# The paper's own space (arXiv 2003.11342, Section 4.1). It gives only the ops, that M=0 changes nothing, that M=3
# shifts by at most 30 % of the visible field and that M=10 of any op leaves nothing; the rest is our reading.
PAPER_GEOMETRIC = Space(
    "paper-geometric", fill="mean", strength="at most", limit=10,
    ops={
        "shear-x":     Range(0, 90, "shear degrees", signed=True),
        "shear-y":     Range(0, 90, "shear degrees", signed=True),
        "translate-x": Range(0, 1, "sides", signed=True),
        "translate-y": Range(0, 1, "sides", signed=True),
        "cutout":      Range(0, 1, "sides"),
    },
)  # fmt: skip

# RandAugment of the TPU EfficientNet code: tensorflow/tpu 7dc921f, models/official/efficientnet/autoaugment.py,
# whose M is 9, 15 and 28 in the paper. Levels go on past 10 unclipped; pixels are absolute whatever the image size.
# Where that code is undefined (posterize past 8 bits, solarize past 256) ours changes nothing.
TF_EFFICIENTNET = Space(
    "tf-efficientnet", fill=(128, 128, 128),
    ops={
        "autocontrast": None,
        "equalize":     None,
        "invert":       None,
        "rotate":       Range(0, 30, "degrees", signed=True),
        "posterize":    Range(0, 4, "bits", whole="truncated"),
        "solarize":     Range(0, 256, "threshold", whole="truncated"),
        "color":        Range(0.1, 1.9, "factor"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 100, "pixels", signed=True),
        "translate-y":  Range(0, 100, "pixels", signed=True),
        "cutout":       Range(0, 40, "half side", whole="truncated"),
        "solarize-add": Range(0, 110, "addition", whole="truncated"),
    },
)  # fmt: skip

# AutoAugment of the same file: translate_const 250 and cutout_const 100 instead of 100 and 40.
TF_EFFICIENTNET_AUTOAUGMENT = replace(
    TF_EFFICIENTNET, name="tf-efficientnet-autoaugment",
    ops=TF_EFFICIENTNET.ops | {
        "translate-x":  Range(0, 250, "pixels", signed=True),
        "translate-y":  Range(0, 250, "pixels", signed=True),
        "cutout":       Range(0, 100, "half side", whole="truncated"),
    },
)  # fmt: skip

# AutoAugment on CIFAR and SVHN: tensorflow/models 245f66d, research/autoaugment/augmentation_transforms.py. Pixels are
# those of 32-pixel images. There what comes from outside the image is marked by alpha 0 and becomes the mean at the
# end, except that autocontrast, equalize, invert, posterize and solarize reset alpha, so that fill of an earlier op
# stays black as they processed it. That subtlety is not reproduced: ours is the mean at once, and later ops process it.
AUTOAUGMENT_CIFAR = Space(
    "autoaugment-cifar", fill="mean", limit=10,
    ops={
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 10, "pixels", signed=True, whole="truncated"),
        "translate-y":  Range(0, 10, "pixels", signed=True, whole="truncated"),
        "rotate":       Range(0, 30, "degrees", signed=True, whole="truncated"),
        "autocontrast": None,
        "invert":       None,
        "equalize":     None,
        "solarize":     Range(256, 0, "threshold", whole="truncated"),
        "posterize":    Range(4, 0, "bits", whole="truncated"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "color":        Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "cutout":       Range(0, 20, "side", whole="truncated"),
    },
)  # fmt: skip

# PBA: arcelien/pba a9cc308, pba/augmentation_transforms.py and augmentation_transforms_hp.py, a copy of the above, its
# fill included. The order of the ops is that in which its schedules list them.
PBA = replace(
    AUTOAUGMENT_CIFAR, name="pba",
    ops={name: AUTOAUGMENT_CIFAR.ops[name] for name in (
        "rotate", "translate-x", "translate-y", "brightness", "color", "invert", "sharpness", "posterize", "shear-x",
        "solarize", "shear-y", "equalize", "autocontrast", "cutout", "contrast",
    )},
)  # fmt: skip

# Fast AutoAugment: kakaobrain/fast-autoaugment 2424224, FastAutoAugment/augmentations.py. Ranges have two sides and are
# mirrored at random as well: at level 0.5 the geometric ops change nothing, 0 and 1 are equally strong.
FAST_AUTOAUGMENT = Space(
    "fast-autoaugment", fill=(0, 0, 0), cutout_fill=(125, 123, 114), full_level=1, limit=1,
    ops={
        "shear-x":      Range(-0.3, 0.3, "shear", signed=True),
        "shear-y":      Range(-0.3, 0.3, "shear", signed=True),
        "translate-x":  Range(-0.45, 0.45, "sides", signed=True),
        "translate-y":  Range(-0.45, 0.45, "sides", signed=True),
        "rotate":       Range(-30, 30, "degrees", signed=True),
        "autocontrast": None,
        "invert":       None,
        "equalize":     None,
        "solarize":     Range(0, 256, "threshold"),
        "posterize":    Range(4, 8, "bits", whole="truncated"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "color":        Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "cutout":       Range(0, 0.2, "widths"),
    },
)  # fmt: skip

# timm's RandAugment without its options mstd, inc and mmax: huggingface/pytorch-image-models aa4b585,
# timm/data/auto_augment.py. It applies a drawn op with probability 1/2 and clamps magnitudes at 10.
TIMM = Space(
    "timm", fill=(128, 128, 128), resample=("bilinear", "bicubic"), probability=0.5,
    limit=10, beyond=" (timm clamps larger ones to 10)",
    ops={
        "autocontrast": None,
        "equalize":     None,
        "invert":       None,
        "rotate":       Range(0, 30, "degrees", signed=True),
        "posterize":    Range(0, 4, "bits", whole="truncated"),
        "solarize":     Range(0, 256, "threshold", whole="truncated"),
        "solarize-add": Range(0, 110, "addition", whole="truncated"),
        "color":        Range(0.1, 1.9, "factor"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 0.45, "sides", signed=True),
        "translate-y":  Range(0, 0.45, "sides", signed=True),
    },
)  # fmt: skip

# torchvision's RandAugment: pytorch/vision 0352a47, torchvision/transforms/autoaugment.py, 31 bins.
TORCHVISION = Space(
    "torchvision", fill=(0, 0, 0), full_level=30, limit=30, whole_levels=True, linspace=True,
    beyond=", whose scale has 31 bins",
    ops={
        "none":         None,
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 150 / 331, "sides", signed=True, whole="truncated"),
        "translate-y":  Range(0, 150 / 331, "sides", signed=True, whole="truncated"),
        "rotate":       Range(0, 30, "degrees", signed=True),
        "brightness":   Range(0, 0.9, "1 ± factor", signed=True),
        "color":        Range(0, 0.9, "1 ± factor", signed=True),
        "contrast":     Range(0, 0.9, "1 ± factor", signed=True),
        "sharpness":    Range(0, 0.9, "1 ± factor", signed=True),
        "posterize":    Range(8, 4, "bits", whole="rounded"),
        "solarize":     Range(255, 0, "threshold"),
        "autocontrast": None,
        "equalize":     None,
    },
)  # fmt: skip

# AutoAugment of the same file: the same ends over 10 bins, so that level 9 is the strongest; and invert.
TORCHVISION_AUTOAUGMENT = replace(
    TORCHVISION, name="torchvision-autoaugment", full_level=9, limit=9, beyond=", whose scale has 10 bins",
    ops=TORCHVISION.ops | {"invert": None},
)  # fmt: skip

# TrivialAugmentWide of the same file (arXiv 2103.10158): ranges of its own, shifts in pixels.
TORCHVISION_WIDE = replace(
    TORCHVISION, name="torchvision-wide",
    ops=TORCHVISION.ops | {
        "shear-x":      Range(0, 0.99, "shear", signed=True),
        "shear-y":      Range(0, 0.99, "shear", signed=True),
        "translate-x":  Range(0, 32, "pixels", signed=True, whole="truncated"),
        "translate-y":  Range(0, 32, "pixels", signed=True, whole="truncated"),
        "rotate":       Range(0, 135, "degrees", signed=True),
        "brightness":   Range(0, 0.99, "1 ± factor", signed=True),
        "color":        Range(0, 0.99, "1 ± factor", signed=True),
        "contrast":     Range(0, 0.99, "1 ± factor", signed=True),
        "sharpness":    Range(0, 0.99, "1 ± factor", signed=True),
        "posterize":    Range(8, 2, "bits", whole="rounded"),
    },
)  # fmt: skip

SPACES = {
    space.name: space
    for space in (
        PAPER_GEOMETRIC, TF_EFFICIENTNET, TF_EFFICIENTNET_AUTOAUGMENT, AUTOAUGMENT_CIFAR, PBA, FAST_AUTOAUGMENT, TIMM,
        TORCHVISION, TORCHVISION_AUTOAUGMENT, TORCHVISION_WIDE,
    )
}  # fmt: skip

RANDAUGMENT_PAPER_OPS = (
    "none", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast", "brightness",
    "sharpness", "shear-x", "shear-y", "translate-x", "translate-y",
)  # fmt: skip
"""The fourteen ops of the RandAugment paper (arXiv 1909.13719, Section 3)."""

_READING_OF_SUB_POLICIES = {
    "tf-efficientnet": "tf-efficientnet-autoaugment",
    "torchvision": "torchvision-autoaugment",
}


def get_space(name: str) -> Space:
    """The space called `name`; InputError with the nearest name if there is none."""
    if name not in SPACES:
        known = list(SPACES)
        raise InputError(f"there is no space {name!r}{nearest(str(name), known) or '; there are ' + ', '.join(known)}")
    return SPACES[name]


def get_sub_policy_space(name: str) -> Space:
    """The space in which system `name` reads its sub-policies, where that differs from its RandAugment."""
    return get_space(_READING_OF_SUB_POLICIES.get(name, name))
