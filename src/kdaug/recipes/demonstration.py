"""The recipe of `kdaug demo`: minutes on a laptop, on the bundled images."""

from __future__ import annotations

from kdaug.config import Data, Network, Optimization, Recipe, Run, Supervision, Teacher, Views
from kdaug.recipes.named import NamedRecipe


def demo() -> Recipe:
    """Wide-ResNet-10-1 on five drawings of each of 242 characters, few enough to over-fit, with the bundled teacher."""
    return Recipe(
        data=Data(name="omniglot", train_images=1210),
        views=Views(policy="randaugment-n2-m3@paper-geometric", pad=2, flip=False),
        student=Network("wide_resnet10_1"),
        teacher=Teacher(source="bundled"),
        supervision=Supervision(weight=1.0, k=20, temperature=2.0),
        optimization=Optimization(epochs=64, global_batch=32, learning_rate=0.1, weight_decay=5e-4),
        run=Run(evaluate_every=8, evaluate_train=True),
    )


DEMONSTRATION = (
    NamedRecipe(
        "demo",
        "Getting started",
        "Wide-ResNet-10-1 on the bundled Omniglot characters under strong geometric RandAugment, with teacher",
        "A small version of the paper's Table 1, trained by kdaug demo. Network size and epochs are our choice.",
        demo,
        classes=242,
        images=1_210,
        existing_teacher=("wide_resnet22_1", 28),
    ),
)
