"""ImageNet: the paper's Table 3, EfficientNets B0, B4, B7 and B8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from kdaug.config import Adversary, Data, Network, Optimization, Recipe, Run, Supervision, Teacher, Views
from kdaug.recipes.named import NamedRecipe, load_table

IMAGES = 1_281_167
BATCH = 4096
NETWORKS = ("tf_efficientnet_b0", "tf_efficientnet_b4", "tf_efficientnet_b7", "tf_efficientnet_b8")

# RandAugment's M, and (K, lambda) of the divergence: paper Section 4.2. T is 10 for all networks.
MAGNITUDE = {"tf_efficientnet_b0": 9, "tf_efficientnet_b4": 15, "tf_efficientnet_b7": 28, "tf_efficientnet_b8": 28}
K_AND_WEIGHT_B0 = (5, 0.5)
K_AND_WEIGHT_LARGER = (50, 2.0)
# The paper trains B0 for 500 epochs. It follows the TPU code in all else, which trains for about 350.
EPOCHS_B0 = 500
EPOCHS_TPU_CODE = 350
# Images per forward pass on one GPU: our choice, about what 32 GB hold in bfloat16.
DEVICE_BATCH = {"tf_efficientnet_b0": 128, "tf_efficientnet_b4": 32, "tf_efficientnet_b7": 16, "tf_efficientnet_b8": 8}
B8_TEACHER = "runs/imagenet-efficientnet_b7-kd"


def table3(network: str, method: str) -> Recipe:
    """Table 3. network: an EfficientNet of timm's tf_ kind. method: "autoaugment", "randaugment", "advprop" or "kd"."""
    published = load_table("settings")["efficientnet"]["models"][network]
    is_b0 = network == "tf_efficientnet_b0"
    randaugment = f"randaugment-n2-m{MAGNITUDE[network]}@tf-efficientnet"
    policy = randaugment if method in ("randaugment", "kd") else "autoaugment-imagenet"
    k, weight = K_AND_WEIGHT_B0 if is_b0 else K_AND_WEIGHT_LARGER
    teacher = Teacher()
    if method == "kd":
        is_b8 = network == "tf_efficientnet_b8"
        teacher = Teacher(f"run:{B8_TEACHER}") if is_b8 else Teacher("train", policy=randaugment)
    return Recipe(
        data=Data(name="folder", root="imagenet", image_size=published["resolution"], workers=8),
        views=Views(policy=policy, crop="random-resized"),
        student=Network(network, drop_path=0.2, dropout=published["dropout"], batch_norm_momentum=0.01),
        teacher=teacher,
        supervision=Supervision(weight=weight, k=k, temperature=10.0, label_smoothing=0.1),
        adversary=Adversary(steps=5, epsilon=4.0, step_size=1.0) if method == "advprop" else Adversary(),
        optimization=Optimization(
            epochs=EPOCHS_B0 if is_b0 and method == "kd" else EPOCHS_TPU_CODE,
            global_batch=BATCH,
            optimizer="rmsprop-tf",
            learning_rate=0.016 * BATCH / 256,
            schedule="staircase",
            warmup_epochs=5.0,
            weight_decay=1e-5,
            decay_on="weights",
            clip_norm=None,
            ema_decay=0.9999,
        ),
        run=Run(device_batch=DEVICE_BATCH[network]),
    )


def doubled(recipe: Recipe) -> Recipe:
    """`recipe` with twice the epochs and a learning-rate staircase of twice as long steps."""
    settings = recipe.optimization
    twice = replace(settings, epochs=2 * settings.epochs, decay_epochs=2 * settings.decay_epochs)
    return replace(recipe, optimization=twice)


def evaluated_at(recipe: Recipe, image_size: int) -> Recipe:
    """`recipe` evaluated on images of `image_size` pixels."""
    return replace(recipe, run=replace(recipe.run, evaluate_size=image_size))


_METHODS = {
    "autoaugment": "AutoAugment",
    "randaugment": "RandAugment",
    "advprop": "AdvProp and AutoAugment",
    "kd": "RandAugment with teacher",
}


def _table3_recipes() -> Iterator[NamedRecipe]:
    paper = load_table("paper")["table3"]
    for network, row in zip(NETWORKS, paper["rows"], strict=True):
        accuracies = dict(zip(paper["columns"], row["top1"], strict=True))
        short_name = network.removeprefix("tf_")
        for method, title in _METHODS.items():
            top1 = accuracies["ours" if method == "kd" else method]
            if method == "randaugment" and top1 is None:
                top1 = accuracies["randaugment_reproduced"]
            yield _table3_recipe(f"{short_name}-{method}", f"{short_name}, {title}", network, method, top1)
    b4, b8 = "tf_efficientnet_b4", "tf_efficientnet_b8"
    summary = "efficientnet_b4, RandAugment, twice the epochs"
    yield replace(
        _table3_recipe("efficientnet_b4-doubled", summary, b4, "randaugment", 83.2),
        make=lambda: doubled(table3(b4, "randaugment")),
    )
    summary = "efficientnet_b8, with teacher, evaluated at 800 pixels"
    yield replace(
        _table3_recipe("efficientnet_b8-kd-800", summary, b8, "kd", 85.8),
        make=lambda: evaluated_at(table3(b8, "kd"), 800),
    )


def _table3_recipe(name: str, summary: str, network: str, method: str, top1: float | None) -> NamedRecipe:
    is_b8_with_teacher = network == "tf_efficientnet_b8" and method == "kd"
    return NamedRecipe(
        f"imagenet-{name}",
        "Table 3, ImageNet",
        summary,
        _source(method, is_b8_with_teacher),
        partial(table3, network, method),
        classes=1000,
        images=IMAGES,
        published_error=None if top1 is None else round(100 - top1, 1),
        existing_teacher=("tf_efficientnet_b7", 600) if is_b8_with_teacher else None,
    )


def _source(method: str, is_b8_with_teacher: bool) -> str:
    optimization = (
        "Optimization of the TPU EfficientNet code (tensorflow/tpu 9397f99): RMSProp, 0.016 per 256 images, x0.97\n"
        "every 2.4 epochs, 5 of warm-up, EMA 0.9999, smoothing 0.1, drop-connect 0.2. Batch 4096 follows from the\n"
        "paper's learning rate of 0.256.\n"
    )
    match method:
        case "kd" if is_b8_with_teacher:
            return optimization + f"Teacher: {B8_TEACHER}. Train imagenet-efficientnet_b7-kd first."
        case "kd":
            return optimization + "Teacher: the same network and policy. The paper names only the network."
        case "advprop":
            return (
                optimization + "Adversary: no published strength found for EfficientNet; ours: epsilon 4, 5 steps of 1."
            )
        case _:
            return optimization + "About 350 epochs, as in that code."


IMAGENET = tuple(_table3_recipes())
