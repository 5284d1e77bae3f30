"""The recipe for the user's own photos: a folder with one sub-folder per class."""

from __future__ import annotations

from kdaug.config import Data, Network, Optimization, Recipe, Supervision, Teacher, Views
from kdaug.recipes.named import NamedRecipe


def photos() -> Recipe:
    """EfficientNet-B0 at 224 pixels; the teacher is the same network, trained on the same photos without a policy.

    Not the paper's K = 5 and T = 10 of 1,000 classes: of the few classes of a folder they asked students for logits far
    apart, which made fine-tuning worse than plain training by 26 points (docs/own-photos.md). Up to 50 classes, K = 50
    is the KL divergence over all.
    """
    return Recipe(
        data=Data(name="folder", check=True, balance="auto"),
        views=Views(policy="randaugment-n2-m9@tf-efficientnet", crop="random-resized"),
        student=Network("efficientnet_b0"),
        teacher=Teacher(source="train"),
        supervision=Supervision(weight=1.0, k=50, temperature=2.0),
        optimization=Optimization(epochs=50, global_batch=32, learning_rate=0.05, weight_decay=1e-4),
    )


PHOTOS = (
    NamedRecipe(
        "photos",
        "Getting started",
        "EfficientNet-B0 on an image folder at 224 pixels, RandAugment N=2 M=9 (the paper's for B0), with teacher",
        "Set data.root to the folder. kdaug train photos chooses initial weights, image size, batch, optimizer and\n"
        "epochs for the photos and the machine, unless flags set them. The values here are for other uses; our choice.",
        photos,
        classes=10,
        images=None,
    ),
)
