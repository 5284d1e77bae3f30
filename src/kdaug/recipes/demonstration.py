"""The recipe of `kdaug demo`: minutes on a laptop, on the bundled images."""

from __future__ import annotations

from kdaug.config import Data, Network, Optimization, Recipe, Supervision, Teacher, Views
from kdaug.recipes.named import NamedRecipe


def demo() -> Recipe:
    """Wide-ResNet-10-1 on 10,000 Fashion-MNIST images; strong augmentation for the student, none for its teacher."""
    return Recipe(
        data=Data(name="bundled"),
        views=Views(policy="randaugment-n2-m5@paper-geometric", pad=2),
        student=Network("wide_resnet10_1"),
        teacher=Teacher(source="train"),
        supervision=Supervision(weight=1.0, k=5, temperature=2.0),
        optimization=Optimization(epochs=8, global_batch=128, learning_rate=0.1, weight_decay=5e-4),
    )


DEMONSTRATION = (
    NamedRecipe(
        "demo",
        "Getting started",
        "Wide-ResNet-10-1 on the bundled Fashion-MNIST images under strong geometric RandAugment, with teacher",
        "A small version of the paper's Table 1, trained by kdaug demo. Network size and epochs are our choice.",
        demo,
        classes=10,
        images=10_000,
    ),
)
