"""CIFAR-100 under RandAugment in the paper's geometric space (Table 1), as published and small."""

from __future__ import annotations

from dataclasses import replace

from kdaug.config import Data, Network, Optimization, Recipe, Run, Supervision, Teacher, Views


def cifar100_table1() -> Recipe:
    """Paper Table 1: Wide-ResNet-28-10 on CIFAR-100, two geometric ops at magnitude 1, with teacher.

    Published error 17.6 %, without teacher (--teacher.source none) 19.5 %; other columns with --views.magnitude 0..7.
    Optimisation of the AutoAugment release: 200 epochs, batch 128, SGD-Nesterov 0.1, cosine, decay 5e-4, clip 5,
    cutout 16. The paper does not say how the teacher of this table was trained: ours sees crop, flip and cutout.
    """
    return Recipe(
        data=Data(name="cifar-100"),
        views=Views(policy="randaugment-n2-m1@paper-geometric", cutout=16),
        student=Network("wide_resnet28_10"),
        teacher=Teacher(source="train", cutout=16),
        supervision=Supervision(weight=1.0, k=5, temperature=2.0),
        optimization=Optimization(epochs=200, global_batch=128, learning_rate=0.1, weight_decay=5e-4),
    )


def cifar100_table1_small() -> Recipe:
    """Table 1 for a 2-core machine: Wide-ResNet-16-1, 10,000 of the images, 20 epochs, no cutout-16.

    Shows the effect of the teacher at each magnitude, not the paper's figures; some minutes a run.
    """
    full = cifar100_table1()
    return replace(
        full,
        data=replace(full.data, train_images=10_000),
        views=replace(full.views, cutout=0),
        student=Network("wide_resnet16_1"),
        teacher=Teacher(source="train"),
        optimization=replace(full.optimization, epochs=20),
        run=Run(evaluate_every=5),
    )
