"""The settings that `kdaug train photos` chooses: rules by the number of photos, the device and the initial weights.

Batch and image size come first (`size_settings`). The other settings of the optimizer follow from them and from what
the user has set (`optimizer_settings`), and the schedule from the number of epochs (`epochs_by_rule`,
`schedule_settings`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from kdaug.config import Recipe

CHOSEN = (
    "student.name",
    "student.pretrained",
    "teacher.weights",
    "data.image_size",
    "optimization.global_batch",
    "optimization.optimizer",
    "optimization.learning_rate",
    "optimization.weight_decay",
    "optimization.decay_on",
    "optimization.epochs",
    "teacher.epochs",
    "optimization.warmup_epochs",
    "optimization.ema_decay",
    "optimization.precision",
    "run.evaluate_every",
)
"""All settings that are chosen unless the user sets them."""


@dataclass(frozen=True)
class Facts:
    """What the rules depend on.

    images: number of training images. on_gpu, processes: where and by how many processes the networks are trained.
    fine_tunes: whether the student starts from weights. native_side: side in pixels of the images that these weights,
    or the network, are made for; None: unknown. is_fixed_side: whether the network takes no other side.
    """

    images: int
    on_gpu: bool
    processes: int
    fine_tunes: bool
    native_side: int | None
    is_fixed_side: bool


@dataclass(frozen=True)
class _Length:
    """How long to train: `views` views of training images in total, but `fewest` to `most` epochs."""

    views: int
    fewest: int
    most: int


# Fine-tuning: BiT's hyper-rule (arXiv 1912.11370; big_transfer/bit_hyperrule.py), 500 steps of 512 images for less than
# 20,000 images. From scratch: 100 epochs as ResNet strikes back A3 (arXiv 2110.00476), 300 as its A2 and DeiT, which
# small data need. CPUs: a quarter and a tenth of the views, as many as they manage in hours; our choice.
_LENGTHS = {
    # (fine-tunes, on a GPU): views, fewest and most epochs
    (True, True): _Length(500 * 512, 10, 100),
    (True, False): _Length(125 * 512, 5, 30),
    (False, True): _Length(2_560_000, 100, 300),
    (False, False): _Length(256_000, 10, 100),
}
# Learning rates for a batch of 256 images. Another size changes them as in timm's train.py (--lr-base-scale): by the
# square root of its ratio for adaptive optimizers, else by the ratio. Fine-tuning: sgd as Kornblith et al. (arXiv
# 1805.08974) and BiT (0.003 for 512 images). adamw is ours: more than ConvNeXt's 5e-5 for 512 images, because there are
# few steps and the new classifier starts from zero.
_RATES = {
    # optimizer: learning rate from scratch, for fine-tuning, power of the ratio, weight decay
    "adamw": (1e-3, 5e-4, 0.5, 0.05),  # ConvNeXt (arXiv 2201.03545): 4e-3 for 4,096 images; weight decay also DeiT's
    "sgd": (0.1, 0.01, 1.0, 1e-4),  # torchvision's references/classification: 0.1 for 256 images
    "rmsprop-tf": (0.016, 0.0016, 1.0, 1e-5),  # the EfficientNet code (tensorflow/tpu 9397f99)
}
_BASE_BATCH = 256
_LARGEST_BATCH = {True: 64, False: 32}
"""Images per GPU, or per process on a CPU."""
_SMALLEST_BATCH = 8
_STEPS_PER_EPOCH = 10
"""At least, unless the batch is the smallest: enough steps for small folders."""
_SMALLEST_SIDE, _SIDE_STEP = 96, 32
"""Pixels: images are not made smaller than this to save time, and in steps of this, the stride of most networks."""
_DEFAULT_SIDE, _CPU_SIDE = 224, 160
"""Pixels. 160: the resolution at which ResNet strikes back A3 trains, half the operations of 224."""
_WARMUP_SHARE, _MOST_WARMUP_EPOCHS = 0.1, 5.0
"""5 epochs: timm's, DeiT's and torchvision's warm-up; short runs have a tenth."""
_EMA_DECAYS = (0.9999, 0.999, 0.99)
"""timm's value, and shorter averages for shorter runs."""
_EMA_SHARE = 0.1
"""The most of a run that the average may reach back, as 1 / (1 - decay) steps."""
MOST_EVALUATIONS = 20


def size_settings(facts: Facts) -> dict[str, Any]:
    """The image size and the batch, which set the time of a step, and the optimizer."""
    side = facts.native_side or _DEFAULT_SIDE
    if not facts.on_gpu and not facts.is_fixed_side:
        side = min(side, _CPU_SIDE)
    batch = _SMALLEST_BATCH
    while 2 * batch <= _LARGEST_BATCH[facts.on_gpu] * facts.processes and 2 * batch * _STEPS_PER_EPOCH <= facts.images:
        batch *= 2
    batch = max(1, min(batch, facts.images) // facts.processes) * facts.processes
    return {"data.image_size": side, "optimization.global_batch": batch, "optimization.optimizer": "adamw"}


def optimizer_settings(recipe: Recipe, facts: Facts) -> dict[str, Any]:
    """Learning rate and weight decay for the optimizer and the batch of `recipe`."""
    from_scratch, fine_tuning, power, weight_decay = _RATES[recipe.optimization.optimizer]
    rate = fine_tuning if facts.fine_tunes else from_scratch
    rate *= (recipe.optimization.global_batch / _BASE_BATCH) ** power
    return {
        "optimization.learning_rate": float(f"{rate:.2g}"),
        "optimization.weight_decay": weight_decay,
        "optimization.decay_on": "weights",
    }


def epochs_by_rule(facts: Facts) -> int:
    """Epochs of the student for its number of photos, without a limit of time."""
    length = _LENGTHS[facts.fine_tunes, facts.on_gpu]
    return min(max(round(length.views / facts.images), length.fewest), length.most)


def fewest_epochs(facts: Facts) -> int:
    """The epochs below which smaller images are better than fewer epochs; our choice."""
    return _LENGTHS[facts.fine_tunes, facts.on_gpu].fewest


def smaller_side(side: int, share: float) -> int | None:
    """A smaller side of images with at most `share` of the pixels: a multiple of 32, at least 96; None: there is none.

    Where none of these has so few pixels, it is 96.
    """
    fitting = min(math.sqrt(share) * side, side - 1)
    smaller = max(_SMALLEST_SIDE, int(fitting) // _SIDE_STEP * _SIDE_STEP)
    return smaller if smaller < side else None


def most_epochs(facts: Facts) -> int:
    """The most epochs that a limit of time may allow: as many as on a GPU, where time is not short."""
    return max(epochs_by_rule(facts), epochs_by_rule(_on_gpu(facts)))


def _on_gpu(facts: Facts) -> Facts:
    return Facts(**{**vars(facts), "on_gpu": True})


def trains_teacher(recipe: Recipe) -> bool:
    """Whether a run of `recipe` trains its teacher first, unless another run has."""
    return recipe.teacher.source == "train" and recipe.teacher.labels is None


def schedule_settings(recipe: Recipe, facts: Facts, epochs: int) -> dict[str, Any]:
    """The settings that follow from the number of epochs.

    A teacher that is trained has as many, so that its error is that of plain training and the two can be compared.
    """
    has_teacher = trains_teacher(recipe)
    steps = epochs * (facts.images // recipe.optimization.global_batch)
    fitting = [decay for decay in _EMA_DECAYS if 1 / (1 - decay) <= _EMA_SHARE * steps * (1 + 1e-9)]
    shortest = min(epochs, recipe.teacher.epochs or epochs) if has_teacher else epochs
    return {
        "optimization.epochs": epochs,
        **({"teacher.epochs": epochs} if has_teacher else {}),
        "optimization.warmup_epochs": round(min(_WARMUP_SHARE * shortest, _MOST_WARMUP_EPOCHS), 2),
        "optimization.ema_decay": fitting[0] if fitting else None,
        "run.evaluate_every": -(-epochs // MOST_EVALUATIONS),
    }
