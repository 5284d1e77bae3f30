"""The paper's recipes at smaller scales: the same method with fewer images, smaller networks and fewer epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kdaug.config import Data, Network, Recipe, Teacher
from kdaug.errors import InputError

Scale = Literal["smoke", "bundled", "cpu", "gpu", "paper"]
_MILD = "randaugment-n2-m2@paper-geometric"
"""Policy of the teachers, which are larger than the student: a teacher that has memorized the training images says
little about their views."""


@dataclass(frozen=True)
class _ScaleSettings:
    """What a scale uses instead of the paper's settings.

    data: changed settings of the data. networks: replacements for some of the paper's networks; `network` replaces all
    others. plain_teacher: changed settings of teachers that the paper trains without augmentation. The paper's Cutout
    of 16 pixels after the policy is left out: small networks learn too little with it.
    """

    data: Mapping[str, Any]
    networks: Mapping[str, str]
    network: str
    epochs: int
    clean_epochs: int
    batch: int
    learning_rate: float
    plain_teacher: Mapping[str, Any] = field(default_factory=dict)


_WEAKER = {"shake_shake26_2x96d": "wide_resnet16_1"}
_CIFAR = {
    "smoke": _ScaleSettings({"name": "bundled", "train_images": 600}, _WEAKER, "wide_resnet10_1", 2, 1, 32, 0.05),
    "bundled": _ScaleSettings(
        {"name": "omniglot", "train_images": 1210}, _WEAKER, "wide_resnet10_1", 64, 8, 32, 0.1,
        {"network": "wide_resnet22_1", "policy": _MILD, "epochs": 100},
    ),
    "cpu": _ScaleSettings(
        {"name": "cifar-10", "train_images": 4000}, _WEAKER, "wide_resnet10_1", 50, 8, 64, 0.1,
        {"network": "wide_resnet16_1", "policy": _MILD, "epochs": 80},
    ),
    "gpu": _ScaleSettings(
        {}, {"shake_shake26_2x96d": "shake_shake26_2x32d"}, "wide_resnet16_4", 60, 8, 256, 0.2,
        {"policy": "randaugment-n2-m1@paper-geometric"},
    ),
}  # fmt: skip
_IMAGENET = {
    "smoke": _ScaleSettings({"name": "bundled", "train_images": 400}, {}, "tf_efficientnet_b0", 1, 0, 32, 0.02),
    "cpu": _ScaleSettings({"image_size": 64}, {}, "tf_efficientnet_b0", 16, 0, 16, 0.02),
    "gpu": _ScaleSettings({"train_images": 100_000, "image_size": 128}, {}, "tf_efficientnet_b0", 16, 0, 512, 0.1),
}
_BUNDLED_PAD = 2
"""Pixels: half of CIFAR's 4, because the bundled images are 28 pixels wide instead of 32."""


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """One of the paper's recipes for CIFAR or ImageNet at `scale`. The changed settings are our choice.

    "smoke": some bundled images, to show that it runs. "bundled": five drawings of each bundled Omniglot character, for
    so many epochs that plain training over-fits. "cpu": the same with 4,000 images of CIFAR-10, or photos at 64 pixels;
    hours on two cores. "gpu": all of CIFAR, or 100,000 ImageNet images at 128 pixels; minutes to an hour on one GPU.
    "paper": unchanged. Raises InputError if there is no such scale.
    """
    if scale == "paper":
        return recipe
    scales = _IMAGENET if recipe.data.name == "folder" else _CIFAR
    if scale not in scales:
        raise InputError(f"the scale {scale} has no ImageNet", f"choose {', '.join(scales)} or paper")
    settings = scales[scale]
    return _with_data_and_networks(_with_optimization(recipe, settings), settings)


def _with_optimization(recipe: Recipe, settings: _ScaleSettings) -> Recipe:
    """SGD with a cosine schedule; without warm-up, EMA and gradient accumulation, which are made for long training."""
    optimization = replace(
        recipe.optimization,
        epochs=settings.epochs,
        clean_epochs=min(recipe.optimization.clean_epochs, settings.clean_epochs),
        optimizer="sgd",
        schedule="cosine",
        decay_epochs=2.4,
        warmup_epochs=0.0,
        global_batch=settings.batch,
        learning_rate=settings.learning_rate,
        ema_decay=None,
    )
    run = replace(recipe.run, device_batch=None, evaluate_every=max(1, settings.epochs // 4), evaluate_train=True)
    return replace(recipe, optimization=optimization, run=run)


def _with_data_and_networks(recipe: Recipe, settings: _ScaleSettings) -> Recipe:
    """Fewer images and smaller networks. The policy and the losses stay."""
    data = replace(recipe.data, **settings.data)
    views = replace(recipe.views, cutout=0)
    if data.name in ("bundled", "omniglot"):
        data = replace(Data(), **settings.data)
        views = replace(views, crop="pad", pad=_BUNDLED_PAD, flip=data.name != "omniglot")  # a mirrored d is a b
    student = Network(settings.networks.get(recipe.student.name, settings.network))
    return replace(recipe, data=data, views=views, student=student, teacher=_teacher(recipe.teacher, settings))


def _teacher(teacher: Teacher, settings: _ScaleSettings) -> Teacher:
    if teacher.source == "none":
        return teacher
    network = settings.networks.get(teacher.network, settings.network) if teacher.network else None
    smaller = replace(
        teacher, source="train", network=network, cutout=0, epochs=None, learning_rate=None, weight_decay=None
    )
    return replace(smaller, **settings.plain_teacher) if teacher.policy == "none" else smaller
