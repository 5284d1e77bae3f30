"""The paper's recipes at smaller scales: the same method with fewer images, smaller networks and fewer epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from kdaug.config import Data, Network, Recipe

Scale = Literal["smoke", "cpu", "gpu", "paper"]


@dataclass(frozen=True)
class _ScaleSettings:
    """What a scale uses instead of the paper's settings.

    images: training images, None for all. networks: replacements for some of the paper's networks; `network` replaces
    all others. teacher_policy: of teachers that the paper trains without augmentation: one that has memorized the
    training images says little about their views. image_size: of ImageNet images, in pixels. The paper's Cutout of 16
    pixels after the policy is left out: small networks learn too little with it.
    """

    images: int | None
    networks: Mapping[str, str]
    network: str
    epochs: int
    clean_epochs: int
    batch: int
    learning_rate: float
    teacher_policy: str = "none"
    image_size: int | None = None


_CIFAR = {
    "smoke": _ScaleSettings(600, {"shake_shake26_2x96d": "wide_resnet16_1"}, "wide_resnet10_1", 2, 1, 32, 0.05),
    "cpu": _ScaleSettings(10_000, {"shake_shake26_2x96d": "wide_resnet16_1"}, "wide_resnet10_1", 12, 3, 32, 0.05),
    "gpu": _ScaleSettings(
        None,
        {"shake_shake26_2x96d": "shake_shake26_2x32d"},
        "wide_resnet16_4",
        60,
        8,
        256,
        0.2,
        teacher_policy="randaugment-n2-m1@paper-geometric",
    ),
}
_IMAGENET = {
    "smoke": _ScaleSettings(400, {}, "tf_efficientnet_b0", 1, 0, 32, 0.02),
    "cpu": _ScaleSettings(None, {}, "tf_efficientnet_b0", 16, 0, 16, 0.02, image_size=64),
    "gpu": _ScaleSettings(100_000, {}, "tf_efficientnet_b0", 16, 0, 512, 0.1, image_size=128),
}
_BUNDLED_PAD = 2
"""Pixels: half of CIFAR's 4, because the bundled images are 28 pixels wide instead of 32."""


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """One of the paper's recipes for CIFAR or ImageNet at `scale`. The changed settings are our choice, not tuned.

    "smoke": the bundled images. "cpu": 10,000 CIFAR images, or photos at 64 pixels; hours on two cores. "gpu": all of
    CIFAR, or 100,000 ImageNet images at 128 pixels; minutes to an hour on one GPU. "paper": unchanged.
    """
    if scale == "paper":
        return recipe
    settings = (_IMAGENET if recipe.data.name == "folder" else _CIFAR)[scale]
    return _with_data_and_networks(_with_optimization(recipe, settings), scale, settings)


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
    run = replace(recipe.run, device_batch=None, evaluate_every=max(1, settings.epochs // 4))
    return replace(recipe, optimization=optimization, run=run)


def _with_data_and_networks(recipe: Recipe, scale: Scale, settings: _ScaleSettings) -> Recipe:
    """Fewer images and smaller networks. The policy and the losses stay."""
    data = replace(recipe.data, train_images=settings.images, image_size=settings.image_size)
    views = replace(recipe.views, cutout=0)
    teacher = recipe.teacher
    if scale == "smoke":
        data = Data(train_images=settings.images)
        views = replace(views, crop="pad", pad=_BUNDLED_PAD)
    if teacher.source != "none":
        teacher = replace(
            teacher,
            source="train",
            network=settings.networks.get(teacher.network, settings.network) if teacher.network else None,
            policy=settings.teacher_policy if teacher.policy == "none" else teacher.policy,
            cutout=0,
            epochs=None,
            learning_rate=None,
            weight_decay=None,
        )
    name = settings.networks.get(recipe.student.name, settings.network)
    return replace(recipe, data=data, views=views, student=Network(name), teacher=teacher)
