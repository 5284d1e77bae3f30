"""CIFAR-10 and CIFAR-100: the paper's Tables 1 and 2 and Section 3.4."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from kdaug.config import Data, Network, Optimization, Recipe, Supervision, Teacher, Views
from kdaug.recipes.named import NamedRecipe, table
from kdaug.recipes.scales import at_scale

CifarName = Literal["cifar-10", "cifar-100"]
IMAGES = 50_000
WIDE_RESNET = "wide_resnet28_10"
PYRAMID = "pyramidnet272_a200_shakedrop"
NETWORKS = (WIDE_RESNET, "shake_shake26_2x32d", "shake_shake26_2x96d", "shake_shake26_2x112d", PYRAMID)
AUTOAUGMENT = "autoaugment-cifar10"

# RandAugment's N and M (arXiv 1909.13719, Sections 4.2 and A.2); other networks as the nearest one it has. Its M goes
# beyond 10 (on CIFAR-100 it is 14), so the space is torchvision's, whose M goes to 30.
RANDAUGMENT = {
    "cifar-10": {WIDE_RESNET: (3, 5), PYRAMID: (3, 7), "shake-shake": (3, 9)},
    "cifar-100": {WIDE_RESNET: (2, 14), PYRAMID: (2, 14), "shake-shake": (2, 14)},
}


def table1(magnitude: int, taught: bool) -> Recipe:
    """Wide-ResNet-28-10 on CIFAR-100, two ops of the geometric space at `magnitude` 0..7, with or without teacher."""
    return Recipe(
        data=Data(name="cifar-100"),
        views=Views(policy=f"randaugment-n2-m{magnitude}@paper-geometric", cutout=16),
        student=Network(WIDE_RESNET),
        teacher=Teacher(source="train", cutout=16) if taught else Teacher(),
        supervision=Supervision(weight=1.0, k=5, temperature=2.0),
        optimization=Optimization(epochs=200, global_batch=128, learning_rate=0.1, weight_decay=5e-4),
    )


def table1_small() -> Recipe:
    """Table 1 at M=1 with teacher, at the scale of two cores."""
    return at_scale(table1(1, taught=True), "cpu")


def table2(dataset: CifarName, network: str, method: str) -> Recipe:
    """`network` on `dataset` under `method`: none, autoaugment, fast-autoaugment, pba, randaugment or kd."""
    published = table("settings")[dataset]["networks"][network]
    optimization = Optimization(
        epochs=published["epochs"],
        global_batch=published["batch"],
        learning_rate=published["lr"],
        weight_decay=published["weight_decay"],
    )
    return Recipe(
        data=Data(name=dataset),
        views=Views(policy=_policy(dataset, network, method), cutout=0 if method == "none" else 16),
        student=Network(network),
        teacher=_teacher(dataset, network, optimization) if method == "kd" else Teacher(),
        supervision=Supervision(weight=1.0, k=3 if dataset == "cifar-10" else 5, temperature=2.0),
        optimization=optimization,
    )


def _policy(dataset: CifarName, network: str, method: str) -> str:
    if method == "randaugment":
        settings = RANDAUGMENT[dataset]
        ops, magnitude = settings.get(network, settings["shake-shake"])
        return f"randaugment-n{ops}-m{magnitude}@torchvision"
    published = {"none": "none", "fast-autoaugment": "fast-autoaugment-cifar10", "pba": "pba-cifar10"}
    return published.get(method, AUTOAUGMENT)


def _is_taught_by_its_like(dataset: CifarName, student: str) -> bool:
    return student == WIDE_RESNET or (student == PYRAMID and dataset == "cifar-100")


def _teacher(dataset: CifarName, student: str, optimization: Optimization) -> Teacher:
    """A Wide-ResNet-28-10 trained with AutoAugment; on CIFAR-100 a PyramidNet is taught by its like."""
    seen = Teacher(source="train", policy=AUTOAUGMENT, cutout=16)
    if _is_taught_by_its_like(dataset, student):
        return seen
    own = table("settings")[dataset]["networks"][WIDE_RESNET]
    return replace(
        seen,
        network=WIDE_RESNET,
        epochs=own["epochs"],
        learning_rate=own["lr"] * optimization.global_batch / own["batch"],
        weight_decay=own["weight_decay"],
    )


def clean_epochs(taught: bool) -> Recipe:
    """Wide-ResNet-28-10 on CIFAR-100 under AutoAugment, then 50 epochs on clean images, with or without teacher."""
    before = table2("cifar-100", WIDE_RESNET, "kd" if taught else "autoaugment")
    return replace(
        before,
        supervision=replace(before.supervision, when="clean" if taught else "all"),
        optimization=replace(before.optimization, clean_epochs=50),
    )


def _table1_recipes() -> Iterator[NamedRecipe]:
    published = table("paper")["table1"]
    source = (
        "Optimisation of the AutoAugment release: 200 epochs, batch 128, SGD-Nesterov 0.1, cosine, decay 5e-4,\n"
        "clip 5, cutout 16. How this table's teacher was trained the paper does not say; ours sees crop, flip, cutout."
    )
    for magnitude in published["magnitude"]:
        for taught in (False, True):
            yield NamedRecipe(
                f"cifar100-table1-m{magnitude}" + "-kd" * taught,
                "Table 1, CIFAR-100",
                f"Wide-ResNet-28-10, two geometric ops at M={magnitude}, {'with' if taught else 'without'} teacher",
                source,
                partial(table1, magnitude, taught),
                classes=100,
                images=IMAGES,
                published_error=published["ra_kd" if taught else "ra"][magnitude],
            )
    yield NamedRecipe(
        "cifar100-table1",
        "Table 1, CIFAR-100",
        "The same as cifar100-table1-m1-kd; other columns with --views.magnitude 0..7",
        source,
        partial(table1, 1, True),
        classes=100,
        images=IMAGES,
        published_error=published["ra_kd"][1],
    )
    yield NamedRecipe(
        "cifar100-table1-small",
        "Table 1, CIFAR-100",
        "Table 1 for a 2-core machine: Wide-ResNet-10-1, 10,000 of the images, 12 epochs, no cutout",
        "Ours: the scale cpu of kdaug reproduce. Shows the effect of the teacher at each magnitude, not the paper's\n"
        "figures; some minutes a run.",
        table1_small,
        classes=100,
        images=10_000,
    )


_METHODS = {
    "none": "crop and flip alone",
    "autoaugment": "AutoAugment",
    "fast-autoaugment": "Fast AutoAugment",
    "pba": "PBA",
    "randaugment": "RandAugment",
    "kd": "AutoAugment with teacher",
}


def _table2_recipes(dataset: CifarName) -> Iterator[NamedRecipe]:
    published, paper = table("settings")[dataset], table("paper")["table2"]
    for network in NETWORKS:
        for method, words in _METHODS.items():
            errors = paper[dataset.replace("-", "")].get(network)
            column = paper["columns"].index("ours" if method == "kd" else method)
            yield NamedRecipe(
                f"{dataset.replace('-', '')}-{network}-{method}",
                f"Table 2, {dataset.upper()}",
                f"{network}, {words}",
                f"Optimisation: {published['source']}.\n{_source_of(dataset, network, method)}",
                partial(table2, dataset, network, method),
                classes=10 if dataset == "cifar-10" else 100,
                images=IMAGES,
                published_error=errors[column] if errors else None,
            )


def _source_of(dataset: CifarName, network: str, method: str) -> str:
    """What else is to be known about a cell of Table 2."""
    match method:
        case "kd" if _is_taught_by_its_like(dataset, network):
            return "Teacher: the same network, trained with AutoAugment in the same way."
        case "kd":
            return "Teacher: Wide-ResNet-28-10, trained with AutoAugment, its learning rate in proportion to the batch."
        case "fast-autoaugment":
            return (
                'The published policy gives the "transfer" figures; the paper\'s are the "direct" ones, a little lower.'
            )
        case "randaugment":
            return "N and M: arXiv 1909.13719; those it has not are its nearest network's. Its space is ours to choose."
        case _:
            return (
                "Policy as published, cutout 16 after it." if method != "none" else "No cutout, as the baseline column."
            )


def _section34_recipes() -> Iterator[NamedRecipe]:
    family = "Section 3.4, CIFAR-100"
    yield NamedRecipe(
        "cifar100-weak-teacher",
        family,
        "Shake-Shake 26 2x96d (14.3 alone) taught by the weaker Wide-ResNet-28-10 (17.1), both under AutoAugment",
        "The same as cifar100-shake_shake26_2x96d-kd.",
        partial(table2, "cifar-100", "shake_shake26_2x96d", "kd"),
        classes=100,
        images=IMAGES,
        published_error=13.8,
    )
    for taught in (False, True):
        yield NamedRecipe(
            "cifar100-clean-epochs" + "-kd" * taught,
            family,
            "Wide-ResNet-28-10 under AutoAugment (17.1), then 50 epochs on clean images"
            + (" with the teacher" if taught else " without teacher"),
            "The paper does not give the learning rate of the clean epochs; ours falls from a tenth to zero, cosine.",
            partial(clean_epochs, taught),
            classes=100,
            images=IMAGES,
            published_error=16.2 if taught else 16.8,
        )


CIFAR = (
    *_table1_recipes(),
    *_table2_recipes("cifar-10"),
    *_table2_recipes("cifar-100"),
    *_section34_recipes(),
)
