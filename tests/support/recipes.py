"""Recipes that train in about a second."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kdaug.config import Data, Network, Optimization, Recipe, Run, Teacher, Views

TINY = Recipe(
    data=Data(train_images=256),
    views=Views(policy="randaugment-n2-m5@paper-geometric"),
    student=Network("softmax_regression"),
    optimization=Optimization(epochs=2, global_batch=64, learning_rate=0.05, precision="float32"),
    run=Run(device="cpu", threads=1),  # with more threads, they would mostly wait for each other
)
"""Two epochs of four steps, without a run directory."""

WITH_TEACHER = replace(
    TINY,
    student=Network("small_convnet"),
    teacher=Teacher(source="train"),
    optimization=Optimization(epochs=2, global_batch=64, precision="float32"),
)
"""The same with a convolutional network and a teacher that is trained first."""

DROPOUT = {"student.name": "softmax_regression_dropout", "run.resume": True}
"""Settings for TINY: its result also depends on torch's generator."""

DEMO_FLAGS = (
    "--data.name bundled --data.train-images 256 --data.no-measure-unused --teacher.source train "
    "--optimization.global-batch 64 --optimization.epochs 1 --run.evaluate-every 1 --run.device cpu --run.threads 1"
).split()
"""Makes the demo recipe four steps long, on the bundled clothes and with a teacher that is trained first."""

SHORT_DEMO = (
    "train demo --teacher.source none --data.name bundled --data.train-images 256 --data.no-measure-unused "
    "--optimization.global-batch 32 "
    "--optimization.epochs 2 --run.evaluate-every 2 --run.checkpoint-steps 1 --run.device cpu --run.threads 1"
).split()
"""The demo recipe in sixteen steps without teacher, with a checkpoint after each step and one evaluation."""

PHOTOS_FLAGS = (
    "--student.name wide_resnet10_1 --data.image-size 32 --data.workers 1 --optimization.global-batch 8 "
    "--optimization.epochs 1 --run.device cpu --run.threads 1"
).split()
"""Makes the photos recipe a few steps of a small network."""


SMALL_PHOTOS = {
    "student.name": "wide_resnet10_1", "data.image_size": 16, "data.workers": 0, "run.device": "cpu", "run.threads": 1,
}  # fmt: skip
"""Settings that make the photos recipe small, and leave the rest to be chosen."""


def with_settings(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    """`recipe` with some settings changed, by dotted name."""
    for name, value in settings.items():
        part, key = name.split(".")
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{key: value})})
    return recipe
