"""The paper's recipes at smaller scales: the same method on fewer images, with smaller networks, for less long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from kdaug.config import Data, Network, Recipe

Scale = Literal["smoke", "cpu", "gpu", "paper"]


@dataclass(frozen=True)
class _Small:
    """What a scale puts in place of the paper's settings.

    networks: by the paper's; one that is not here is `network`. image_size: of photos, in pixels. cutout: whether the
    square of 16 pixels that the paper erases after the policy stays; it is much for a network that learns little.
    """

    images: int | None
    networks: Mapping[str, str]
    network: str
    epochs: int
    clean_epochs: int
    batch: int
    learning_rate: float
    cutout: bool = False
    image_size: int | None = None


_CIFAR = {
    "smoke": _Small(600, {"shake_shake26_2x96d": "wide_resnet16_1"}, "wide_resnet10_1", 2, 1, 32, 0.05),
    "cpu": _Small(10_000, {"shake_shake26_2x96d": "wide_resnet16_1"}, "wide_resnet10_1", 12, 3, 32, 0.05),
    "gpu": _Small(None, {"shake_shake26_2x96d": "shake_shake26_2x32d"}, "wide_resnet40_2", 30, 8, 128, 0.1, True),
}
_IMAGENET = {
    "smoke": _Small(400, {}, "tf_efficientnet_b0", 1, 0, 32, 0.02),
    "cpu": _Small(None, {}, "tf_efficientnet_b0", 16, 0, 16, 0.02, image_size=64),
    "gpu": _Small(100_000, {}, "tf_efficientnet_b0", 16, 0, 512, 0.1, image_size=128),
}
_BUNDLED_PAD = 2
"""Pixels; the bundled images have 28 on a side, and half the 4 of CIFAR's 32 is enough."""


def at_scale(recipe: Recipe, scale: Scale) -> Recipe:
    """`recipe`, one of the paper's for CIFAR or ImageNet, at `scale`; what of it changes is ours and not tuned.

    smoke: the bundled images. cpu: some thousand images, for hours on two cores; photos at 64 pixels. gpu: CIFAR whole,
    100,000 ImageNet images at 128 pixels, for minutes to an hour on one GPU. paper: unchanged.
    """
    if scale == "paper":
        return recipe
    photos = recipe.data.name == "folder"
    small = (_IMAGENET if photos else _CIFAR)[scale]
    return _with_method(_with_optimization(recipe, small), scale, small)


def _with_optimization(recipe: Recipe, small: _Small) -> Recipe:
    """A cosine to zero without warm-up, average of weights or parts of batches: all made for long training."""
    settings = replace(
        recipe.optimization,
        epochs=small.epochs,
        clean_epochs=min(recipe.optimization.clean_epochs, small.clean_epochs),
        optimizer="sgd",
        schedule="cosine",
        decay_epochs=2.4,
        warmup_epochs=0.0,
        global_batch=small.batch,
        learning_rate=small.learning_rate,
        ema_decay=None,
    )
    run = replace(recipe.run, device_batch=None, evaluate_every=max(1, small.epochs // 4))
    return replace(recipe, optimization=settings, run=run)


def _with_method(recipe: Recipe, scale: Scale, small: _Small) -> Recipe:
    """Images, views, networks; what is added to the loss stays."""
    data = replace(recipe.data, train_images=small.images, image_size=small.image_size)
    views = replace(recipe.views, cutout=recipe.views.cutout if small.cutout else 0)
    teacher = recipe.teacher
    if scale == "smoke":
        data = Data(train_images=small.images)
        views = replace(views, crop="pad", pad=_BUNDLED_PAD)
    if teacher.source != "none":
        teacher = replace(
            teacher,
            source="train",
            network=small.networks.get(teacher.network, small.network) if teacher.network else None,
            cutout=teacher.cutout if small.cutout else 0,
            epochs=None,
            learning_rate=None,
            weight_decay=None,
        )
    name = small.networks.get(recipe.student.name, small.network)
    return replace(recipe, data=data, views=views, student=Network(name), teacher=teacher)
