"""Published ImageNet results: the systems of the paper's Table 4, and the timm names of their weights."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A published system. name: of timm's most similar weights, or None if timm has none. parameters (millions), top1
    (percent; None: unknown) and extra_data are as published. note: how timm's weights differ."""

    system: str
    name: str | None
    parameters: float
    top1: float | None
    extra_data: str = ""
    note: str = ""


_WEAK = "3.5 billion tagged images"
_NOT_IN_TIMM = "not in timm"

# The paper's Table 4; the names are those of timm 1.0.
TABLE4 = (
    Published("ResNet-152", "resnet152.tv_in1k", 60, 77.8),
    Published("Inception-v4", "inception_v4.tf_in1k", 48, 80.0),
    Published("ResNeXt-101", "resnext101_64x4d.gluon_in1k", 84, 80.9, note="weights from a different training"),
    Published("SENet", "legacy_senet154.in1k", 146, 82.7, note="115 M parameters in timm"),
    Published("AmoebaNet-C", None, 155, 83.5, note=_NOT_IN_TIMM),
    Published("GPipe", None, 557, 84.3, note=_NOT_IN_TIMM),
    Published("EfficientNet-B7 (RandAugment)", "tf_efficientnet_b7.ra_in1k", 66, 85.0),
    Published("EfficientNet-B8 (RandAugment)", "tf_efficientnet_b8.ra_in1k", 88, 85.4),
    Published("EfficientNet-L2", None, 480, 85.5, note="tf_efficientnet_l2; weights with extra data only"),
    Published("AdvProp (EfficientNet-B8)", "tf_efficientnet_b8.ap_in1k", 88, 85.5),
    Published("ResNeXt-101 Billion-scale", "resnext101_32x16d.fb_swsl_ig1b_ft_in1k", 193, 84.8, _WEAK),
    Published("FixRes ResNeXt-101 WSL", None, 829, 86.4, _WEAK, "timm has up to resnext101_32x32d.fb_wsl_ig1b_ft_in1k"),
    Published("Noisy Student (EfficientNet-L2)", "tf_efficientnet_l2.ns_jft_in1k", 480, 88.4, "300 million images"),
    Published("with KD (EfficientNet-B7)", None, 66, 85.5, note="kdaug train imagenet-efficientnet_b7-kd"),
    Published("with KD (EfficientNet-B8)", None, 88, 85.8, note="kdaug train imagenet-efficientnet_b8-kd-800"),
)

# README of tensorflow/tpu models/official/efficientnet (9397f99, 2020-03-19), the source of the paper's Table 3.
EFFICIENTNETS = (
    Published("EfficientNet-B0 (AutoAugment)", "tf_efficientnet_b0.aa_in1k", 5.3, 77.3),
    Published("EfficientNet-B0 (AdvProp)", "tf_efficientnet_b0.ap_in1k", 5.3, 77.6),
    Published("EfficientNet-B1 (AdvProp)", "tf_efficientnet_b1.ap_in1k", 7.8, None),
    Published("EfficientNet-B2 (AdvProp)", "tf_efficientnet_b2.ap_in1k", 9.1, None),
    Published("EfficientNet-B3 (AdvProp)", "tf_efficientnet_b3.ap_in1k", 12.2, None),
    Published("EfficientNet-B4 (AutoAugment)", "tf_efficientnet_b4.aa_in1k", 19.3, 83.0),
    Published("EfficientNet-B4 (AdvProp)", "tf_efficientnet_b4.ap_in1k", 19.3, 83.3),
    Published("EfficientNet-B5 (RandAugment)", "tf_efficientnet_b5.ra_in1k", 30.4, 83.9),
    Published("EfficientNet-B6 (AdvProp)", "tf_efficientnet_b6.ap_in1k", 43.0, None),
    Published("EfficientNet-B7 (AutoAugment)", "tf_efficientnet_b7.aa_in1k", 66.3, 84.5),
    Published("EfficientNet-B7 (AdvProp)", "tf_efficientnet_b7.ap_in1k", 66.3, 85.2),
)
