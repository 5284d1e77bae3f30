"""The spaces: for each op of each library or paper, its argument at level 0 and at the full level.

The tables keep the order and the constants of their sources. `Space.arguments` computes arguments from them.
"""

from __future__ import annotations

import math
from dataclasses import replace

from kdaug.errors import unknown_choice
from kdaug.views.space import Range, Space

# The geometric space of arXiv 2003.11342, Section 4.1. The paper states only the ops and three effects: M=0 changes
# nothing, M=3 shifts by at most 30 % of the image, and M=10 of any op leaves nothing of it. The rest is our choice.
PAPER_GEOMETRIC = Space(
    "paper-geometric", fill="mean", level_mode="uniform", limit=10,
    ops={
        "shear-x":     Range(0, 90, "shear degrees", signed=True),
        "shear-y":     Range(0, 90, "shear degrees", signed=True),
        "translate-x": Range(0, 1, "side fraction", signed=True),
        "translate-y": Range(0, 1, "side fraction", signed=True),
        "cutout":      Range(0, 1, "side fraction"),
    },
)  # fmt: skip

# RandAugment of the TPU EfficientNet code: tensorflow/tpu 7dc921f, models/official/efficientnet/autoaugment.py.
# The paper uses M 9, 15 and 28. Levels above 10 are not clipped. Shifts and cutouts are in pixels for any image size.
# Where that code is undefined (posterize above 8 bits, solarize above 256), ours changes nothing.
TF_EFFICIENTNET = Space(
    "tf-efficientnet", fill=(128, 128, 128),
    ops={
        "autocontrast": None,
        "equalize":     None,
        "invert":       None,
        "rotate":       Range(0, 30, "degrees", signed=True),
        "posterize":    Range(0, 4, "bits", rounding="truncate"),
        "solarize":     Range(0, 256, "threshold", rounding="truncate"),
        "color":        Range(0.1, 1.9, "factor"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 100, "pixels", signed=True),
        "translate-y":  Range(0, 100, "pixels", signed=True),
        "cutout":       Range(0, 40, "half side", rounding="truncate"),
        "solarize-add": Range(0, 110, "addition", rounding="truncate"),
    },
)  # fmt: skip

# AutoAugment of the same file: translate_const 250 and cutout_const 100 instead of 100 and 40.
TF_EFFICIENTNET_AUTOAUGMENT = replace(
    TF_EFFICIENTNET, name="tf-efficientnet-autoaugment",
    ops=TF_EFFICIENTNET.ops | {
        "translate-x":  Range(0, 250, "pixels", signed=True),
        "translate-y":  Range(0, 250, "pixels", signed=True),
        "cutout":       Range(0, 100, "half side", rounding="truncate"),
    },
)  # fmt: skip

# AutoAugment on CIFAR and SVHN: tensorflow/models 245f66d, research/autoaugment/augmentation_transforms.py. Shifts
# and cutouts are for images of 32 x 32 pixels. That code marks pixels from outside the image by alpha 0 and sets them
# to the mean after all ops. But autocontrast, equalize, invert, posterize and solarize reset alpha: then the fill of
# earlier ops stays black, as these ops changed it. Ours fills with the mean at once, and later ops change it.
AUTOAUGMENT_CIFAR = Space(
    "autoaugment-cifar", fill="mean", limit=10,
    ops={
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 10, "pixels", signed=True, rounding="truncate"),
        "translate-y":  Range(0, 10, "pixels", signed=True, rounding="truncate"),
        "rotate":       Range(0, 30, "degrees", signed=True, rounding="truncate"),
        "autocontrast": None,
        "invert":       None,
        "equalize":     None,
        "solarize":     Range(256, 0, "threshold", rounding="truncate"),
        "posterize":    Range(4, 0, "bits", rounding="truncate"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "color":        Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "cutout":       Range(0, 20, "side", rounding="truncate"),
    },
)  # fmt: skip

# PBA: arcelien/pba a9cc308, pba/augmentation_transforms.py and augmentation_transforms_hp.py. Ranges and fill are those
# of autoaugment-cifar; the order of the ops is that of PBA's schedules.
PBA = replace(
    AUTOAUGMENT_CIFAR, name="pba",
    ops={name: AUTOAUGMENT_CIFAR.ops[name] for name in (
        "rotate", "translate-x", "translate-y", "brightness", "color", "invert", "sharpness", "posterize", "shear-x",
        "solarize", "shear-y", "equalize", "autocontrast", "cutout", "contrast",
    )},
)  # fmt: skip

# Fast AutoAugment: kakaobrain/fast-autoaugment 2424224, FastAutoAugment/augmentations.py. Geometric ranges go
# from negative to positive values, and the sign is random too: they change nothing at level 0.5 and most at 0 and 1.
FAST_AUTOAUGMENT = Space(
    "fast-autoaugment", fill=(0, 0, 0), cutout_fill=(125, 123, 114), full_level=1, limit=1,
    ops={
        "shear-x":      Range(-0.3, 0.3, "shear", signed=True),
        "shear-y":      Range(-0.3, 0.3, "shear", signed=True),
        "translate-x":  Range(-0.45, 0.45, "side fraction", signed=True),
        "translate-y":  Range(-0.45, 0.45, "side fraction", signed=True),
        "rotate":       Range(-30, 30, "degrees", signed=True),
        "autocontrast": None,
        "invert":       None,
        "equalize":     None,
        "solarize":     Range(0, 256, "threshold"),
        "posterize":    Range(4, 8, "bits", rounding="truncate"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "color":        Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "cutout":       Range(0, 0.2, "width fraction"),
    },
)  # fmt: skip

# timm's RandAugment without its options mstd, inc and mmax: huggingface/pytorch-image-models aa4b585,
# timm/data/auto_augment.py. It applies a drawn op with probability 1/2 and clamps magnitudes at 10, or at mmax.
TIMM = Space(
    "timm", fill=(128, 128, 128), resample=("bilinear", "bicubic"), probability=0.5,
    limit=10, limit_note=" (timm clamps larger ones to 10)",
    ops={
        "autocontrast": None,
        "equalize":     None,
        "invert":       None,
        "rotate":       Range(0, 30, "degrees", signed=True),
        "posterize":    Range(0, 4, "bits", rounding="truncate", clip=(0, 8)),
        "solarize":     Range(0, 256, "threshold", rounding="truncate", clip=(0, 256)),
        "solarize-add": Range(0, 110, "addition", rounding="truncate", clip=(0, 128)),
        "color":        Range(0.1, 1.9, "factor"),
        "contrast":     Range(0.1, 1.9, "factor"),
        "brightness":   Range(0.1, 1.9, "factor"),
        "sharpness":    Range(0.1, 1.9, "factor"),
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 0.45, "side fraction", signed=True),
        "translate-y":  Range(0, 0.45, "side fraction", signed=True),
    },
)  # fmt: skip

# timm's option inc: the same ops, of which six get stronger with the level.
TIMM_INCREASING = replace(
    TIMM, name="timm-increasing",
    ops=TIMM.ops | {
        "posterize":    Range(4, 0, "bits", rounding="truncate", clip=(0, 8)),
        "solarize":     Range(256, 0, "threshold", rounding="truncate", clip=(0, 256)),
        "color":        Range(0, 0.9, "1 ± factor", signed=True, clip=(0.1, math.inf)),
        "contrast":     Range(0, 0.9, "1 ± factor", signed=True, clip=(0.1, math.inf)),
        "brightness":   Range(0, 0.9, "1 ± factor", signed=True, clip=(0.1, math.inf)),
        "sharpness":    Range(0, 0.9, "1 ± factor", signed=True, clip=(0.1, math.inf)),
    },
)  # fmt: skip

# timm's AugMix: thirteen of these ops, all applied. `create_transform` shifts by up to 0.3 of the side, not 0.45.
TIMM_AUGMIX = replace(
    TIMM_INCREASING, name="timm-augmix", probability=1.0,
    ops={name: TIMM_INCREASING.ops[name] for name in (
        "autocontrast", "color", "contrast", "brightness", "sharpness", "equalize", "rotate", "posterize", "solarize",
        "shear-x", "shear-y",
    )} | {
        "translate-x":  Range(0, 0.3, "side fraction", signed=True),
        "translate-y":  Range(0, 0.3, "side fraction", signed=True),
    },
)  # fmt: skip

# torchvision's RandAugment: pytorch/vision 0352a47, torchvision/transforms/autoaugment.py, 31 bins.
TORCHVISION = Space(
    "torchvision", fill=(0, 0, 0), full_level=30, limit=30, integer_levels=True, linspace=True,
    limit_note=" (31 bins)",
    ops={
        "none":         None,
        "shear-x":      Range(0, 0.3, "shear", signed=True),
        "shear-y":      Range(0, 0.3, "shear", signed=True),
        "translate-x":  Range(0, 150 / 331, "side fraction", signed=True, rounding="truncate"),
        "translate-y":  Range(0, 150 / 331, "side fraction", signed=True, rounding="truncate"),
        "rotate":       Range(0, 30, "degrees", signed=True),
        "brightness":   Range(0, 0.9, "1 ± factor", signed=True),
        "color":        Range(0, 0.9, "1 ± factor", signed=True),
        "contrast":     Range(0, 0.9, "1 ± factor", signed=True),
        "sharpness":    Range(0, 0.9, "1 ± factor", signed=True),
        "posterize":    Range(8, 4, "bits", rounding="round"),
        "solarize":     Range(255, 0, "threshold"),
        "autocontrast": None,
        "equalize":     None,
    },
)  # fmt: skip

# AutoAugment of the same file: the same ranges over 10 bins, so that level 9 is the strongest, and op invert.
TORCHVISION_AUTOAUGMENT = replace(
    TORCHVISION, name="torchvision-autoaugment", full_level=9, limit=9, limit_note=" (10 bins)",
    ops=TORCHVISION.ops | {"invert": None},
)  # fmt: skip

# TrivialAugmentWide of the same file (arXiv 2103.10158): larger ranges, shifts in pixels.
TORCHVISION_WIDE = replace(
    TORCHVISION, name="torchvision-wide",
    ops=TORCHVISION.ops | {
        "shear-x":      Range(0, 0.99, "shear", signed=True),
        "shear-y":      Range(0, 0.99, "shear", signed=True),
        "translate-x":  Range(0, 32, "pixels", signed=True, rounding="truncate"),
        "translate-y":  Range(0, 32, "pixels", signed=True, rounding="truncate"),
        "rotate":       Range(0, 135, "degrees", signed=True),
        "brightness":   Range(0, 0.99, "1 ± factor", signed=True),
        "color":        Range(0, 0.99, "1 ± factor", signed=True),
        "contrast":     Range(0, 0.99, "1 ± factor", signed=True),
        "sharpness":    Range(0, 0.99, "1 ± factor", signed=True),
        "posterize":    Range(8, 2, "bits", rounding="round"),
    },
)  # fmt: skip

SPACES = {
    space.name: space
    for space in (
        PAPER_GEOMETRIC, TF_EFFICIENTNET, TF_EFFICIENTNET_AUTOAUGMENT, AUTOAUGMENT_CIFAR, PBA, FAST_AUTOAUGMENT, TIMM,
        TIMM_INCREASING, TIMM_AUGMIX, TORCHVISION, TORCHVISION_AUTOAUGMENT, TORCHVISION_WIDE,
    )
}  # fmt: skip

RANDAUGMENT_PAPER_OPS = (
    "none", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize", "contrast", "brightness",
    "sharpness", "shear-x", "shear-y", "translate-x", "translate-y",
)  # fmt: skip
"""The fourteen ops of the RandAugment paper (arXiv 1909.13719, Section 3)."""

_SUB_POLICY_SPACES = {"tf-efficientnet": "tf-efficientnet-autoaugment", "torchvision": "torchvision-autoaugment"}


def get_space(name: str) -> Space:
    """The space called `name`. Raises InputError with the nearest name for an unknown space."""
    if name not in SPACES:
        raise unknown_choice("space", name, SPACES)
    return SPACES[name]


def get_sub_policy_space(name: str) -> Space:
    """The space of sub-policies in space `name`: AutoAugment of some sources has other ranges than RandAugment.

    Raises InputError for an unknown space.
    """
    return get_space(_SUB_POLICY_SPACES.get(name, name))
