"""Which values the settings of a recipe may have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from kdaug.config.recipe import Optimization, Recipe, Supervision, Teacher, Views
from kdaug.errors import InputError

MAX_PROCESSES = 1 << 10
MAX_ATTACK_STEPS = 1000
MAX_ALPHA = 100
MAX_SIDE = 1 << 14
"""Largest side in pixels that a setting may ask for."""


def check(recipe: Recipe) -> Recipe:
    """The recipe itself, or InputError naming the first setting whose value is outside its range or goes unused."""
    _check_ranges(recipe)
    _check_teacher(recipe.teacher)
    _check_schedule(recipe.optimization)
    _check_supervision(recipe)
    if recipe.adversary.steps:
        _check_adversary(recipe.views, recipe.supervision)
    if recipe.views.mixup or recipe.views.cutmix:
        _check_mixing(recipe.supervision)
    return recipe


def check_source(source: str) -> None:
    """InputError if the teacher's `source` is not none, train, run:DIR, file:PATH or timm:NAME."""
    kind, _, place = source.partition(":")
    if source not in ("none", "train") and not (kind in ("run", "file", "timm") and place):
        raise InputError(f"teacher.source is {source!r}; there are none, train, run:DIR, file:PATH, timm:NAME")


def _check_ranges(recipe: Recipe) -> None:
    d, v, t = recipe.data, recipe.views, recipe.teacher
    s, a, o, r = recipe.supervision, recipe.adversary, recipe.optimization, recipe.run
    momentum = recipe.student.batch_norm_momentum
    rules = [
        ("data.train_images", d.train_images, d.train_images is None or d.train_images >= 1, "at least 1"),
        ("data.image_size", d.image_size, _side_or_none(d.image_size), f"from 1 to {MAX_SIDE}"),
        ("data.val_fraction", d.val_fraction, 0 < d.val_fraction < 1, "between 0 and 1"),
        ("data.holdout", d.holdout, 0 <= d.holdout < 1, "from 0 to below 1"),
        ("data.max_unreadable", d.max_unreadable, 0 <= d.max_unreadable <= 1, "from 0 to 1"),
        ("data.workers", d.workers, 0 <= d.workers <= MAX_PROCESSES, f"from 0 to {MAX_PROCESSES}"),
        ("views.magnitude", v.magnitude, v.magnitude is None or 0 <= v.magnitude < math.inf, "at least 0"),
        ("views.pad", v.pad, 0 <= v.pad <= MAX_SIDE, f"from 0 to {MAX_SIDE}"),
        ("views.min_area", v.min_area, 0 < v.min_area <= 1, "above 0 and at most 1"),
        ("views.cutout", v.cutout, 0 <= v.cutout <= MAX_SIDE, f"from 0 to {MAX_SIDE}"),
        ("views.mixup", v.mixup, 0 <= v.mixup <= MAX_ALPHA, f"from 0 to {MAX_ALPHA}"),
        ("views.cutmix", v.cutmix, 0 <= v.cutmix <= MAX_ALPHA, f"from 0 to {MAX_ALPHA}"),
        ("views.seed", v.seed, v.seed is None or 0 <= v.seed < 1 << 63, "from 0 to 2^63-1"),
        ("teacher.cutout", t.cutout, 0 <= t.cutout <= MAX_SIDE, f"from 0 to {MAX_SIDE}"),
        ("teacher.image_size", t.image_size, _side_or_none(t.image_size), f"from 1 to {MAX_SIDE}"),
        ("teacher.seed", t.seed, 0 <= t.seed < 1 << 63, "from 0 to 2^63-1"),
        ("teacher.epochs", t.epochs, t.epochs is None or t.epochs >= 1, "at least 1"),
        ("teacher.learning_rate", t.learning_rate, _positive(t.learning_rate), "above 0"),
        ("teacher.weight_decay", t.weight_decay, _not_negative(t.weight_decay), "at least 0"),
        ("student.batch_norm_momentum", momentum, momentum is None or 0 < momentum <= 1, "above 0 and at most 1"),
        ("student.drop_path", recipe.student.drop_path, 0 <= recipe.student.drop_path < 1, "from 0 to below 1"),
        ("student.dropout", recipe.student.dropout, 0 <= recipe.student.dropout < 1, "from 0 to below 1"),
        ("supervision.weight", s.weight, 0 <= s.weight < math.inf, "at least 0"),
        ("supervision.k", s.k, s.k >= 1, "at least 1"),
        ("supervision.temperature", s.temperature, 0 < s.temperature < math.inf, "above 0"),
        ("supervision.label_smoothing", s.label_smoothing, 0 <= s.label_smoothing < 1, "from 0 to below 1"),
        ("supervision.non_target_weight", s.non_target_weight, 0 <= s.non_target_weight < math.inf, "at least 0"),
        ("supervision.mass", s.mass, s.mass is None or 0 < s.mass <= 1, "above 0 and at most 1, or None"),
        ("supervision.label_weight", s.label_weight, 0 <= s.label_weight < math.inf, "at least 0"),
        ("supervision.drop_worst", s.drop_worst, 0 <= s.drop_worst < 1, "from 0 to below 1"),
        ("adversary.steps", a.steps, 0 <= a.steps <= MAX_ATTACK_STEPS, f"from 0 to {MAX_ATTACK_STEPS}"),
        ("adversary.epsilon", a.epsilon, 0 < a.epsilon <= 255, "above 0 and at most 255"),
        ("adversary.step_size", a.step_size, 0 < a.step_size <= 255, "above 0 and at most 255"),
        ("optimization.epochs", o.epochs, o.epochs >= 1, "at least 1"),
        ("optimization.clean_epochs", o.clean_epochs, o.clean_epochs >= 0, "at least 0"),
        ("optimization.clean_learning_rate", o.clean_learning_rate, _positive(o.clean_learning_rate), "above 0"),
        ("optimization.global_batch", o.global_batch, o.global_batch >= 1, "at least 1"),
        ("optimization.learning_rate", o.learning_rate, 0 < o.learning_rate < math.inf, "above 0"),
        ("optimization.decay_rate", o.decay_rate, 0 < o.decay_rate < 1, "between 0 and 1"),
        ("optimization.decay_epochs", o.decay_epochs, 0 < o.decay_epochs < math.inf, "above 0"),
        ("optimization.milestones", o.milestones, _rising(o.milestones), "rising epochs above 0"),
        ("optimization.warmup_epochs", o.warmup_epochs, 0 <= o.warmup_epochs < math.inf, "at least 0"),
        ("optimization.momentum", o.momentum, 0 < o.momentum < 1, "between 0 and 1"),
        ("optimization.weight_decay", o.weight_decay, 0 <= o.weight_decay < math.inf, "at least 0"),
        ("optimization.clip_norm", o.clip_norm, _positive(o.clip_norm), "above 0, or None"),
        ("optimization.ema_decay", o.ema_decay, o.ema_decay is None or 0 < o.ema_decay < 1, "between 0 and 1, or None"),
        ("run.dir", repr(r.dir), r.dir != "", "a folder's name, or None"),
        ("run.seed", r.seed, 0 <= r.seed < 1 << 63, "from 0 to 2^63-1"),
        ("run.device_batch", r.device_batch, _count_or_none(r.device_batch), "at least 1"),
        ("run.threads", r.threads, r.threads is None or 1 <= r.threads <= MAX_PROCESSES, f"from 1 to {MAX_PROCESSES}"),
        ("run.evaluate_every", r.evaluate_every, r.evaluate_every >= 1, "at least 1"),
        ("run.checkpoint_minutes", r.checkpoint_minutes, 0 <= r.checkpoint_minutes < math.inf, "at least 0"),
        ("run.checkpoint_steps", r.checkpoint_steps, _count_or_none(r.checkpoint_steps), "at least 1"),
        ("run.evaluate_size", r.evaluate_size, _side_or_none(r.evaluate_size), f"from 1 to {MAX_SIDE}"),
        ("run.trackers", r.trackers, len(set(r.trackers)) == len(r.trackers), "each named once"),
    ]  # fmt: skip
    for name, value, holds, range_in_words in rules:
        if not holds:
            raise InputError(f"{name} is {value}, but must be {range_in_words}")


def _check_teacher(t: Teacher) -> None:
    """Without a teacher (none) all its settings may stay: a recipe's teacher is taken away by its source alone."""
    check_source(t.source)
    kind, colon, _ = t.source.partition(":")
    used = {
        "network": ("train", "file:"),
        **dict.fromkeys(("policy", "cutout", "epochs", "learning_rate", "weight_decay", "seed"), ("train",)),
        **dict.fromkeys(("mean", "std"), ("file:",)),
    }
    if t.source != "none":
        _refuse_unused("teacher", t, used, f"teacher.source {t.source}", kind + colon)
    if (t.mean is None) != (t.std is None):
        raise InputError("teacher.mean and teacher.std belong together; give both or neither")
    if t.mean is not None and t.std is not None:
        if not all(map(math.isfinite, (*t.mean, *t.std))):
            raise InputError("teacher.mean and teacher.std must be finite numbers")
        if len(t.mean) != len(t.std) or min(t.std, default=0) <= 0:
            raise InputError("teacher.std must have as many values as teacher.mean, all above 0")


def _check_schedule(o: Optimization) -> None:
    if (o.schedule == "milestones") != bool(o.milestones):
        if not o.milestones:
            raise InputError("optimization.schedule is milestones, but optimization.milestones is empty; give epochs")
        raise InputError(f"optimization.milestones is for optimization.schedule milestones, not {o.schedule}")
    if o.clean_learning_rate is not None and not o.clean_epochs:
        raise InputError("optimization.clean_learning_rate is for optimization.clean_epochs; give both or neither")
    if max(o.warmup_epochs, *o.milestones, 0) >= o.epochs:
        name = "warmup_epochs" if o.warmup_epochs >= o.epochs else "milestones"
        raise InputError(
            f"optimization.{name} is {getattr(o, name)}, but must end before optimization.epochs {o.epochs}"
        )
    used = {"decay_rate": ("staircase", "milestones"), "decay_epochs": ("staircase",)}
    _refuse_unused("optimization", o, used, f"optimization.schedule {o.schedule}", o.schedule)


def _check_supervision(recipe: Recipe) -> None:
    s, t = recipe.supervision, recipe.teacher
    if s.when == "clean" and not recipe.optimization.clean_epochs:
        raise InputError("supervision.when is clean, but there are no clean epochs; give optimization.clean_epochs")
    used = {
        **dict.fromkeys(("mass", "reading"), ("top-k",)),
        "scale_by_t2": ("top-k", "decoupled"),
        "non_target_weight": ("decoupled",),
    }
    _refuse_unused("supervision", s, used, f"supervision.divergence {s.divergence}", s.divergence)
    if s.label_trust and s.label_weight == 0:
        raise InputError("supervision.label_trust moves label_weight, which is 0; give it a weight, or no label_trust")
    if s.label_weight == 0 and t.source == "none" and t.labels is None:
        raise InputError(
            "supervision.label_weight is 0, but there is no teacher; give teacher.source, or learn the label"
        )


def _refuse_unused(section: str, settings: Any, used: Mapping[str, Sequence[str]], choice: str, chosen: str) -> None:
    """InputError for a setting of `section` that is not at its default though `choice` makes no use of it.

    used: for each such setting, what may be `chosen` for it to be used.
    """
    for name, users in used.items():
        value, default = getattr(settings, name), getattr(type(settings)(), name)
        if value != default and chosen not in users:
            raise InputError(
                f"{section}.{name} is {value}, but {choice} makes no use of it, only {' and '.join(users)}; leave it "
                f"at {default}"
            )


def _check_adversary(v: Views, s: Supervision) -> None:
    """InputError for what AdvProp's second half, which learns the label of every image alone, would make no use of."""
    for name, value, default in (
        ("views.mixup", v.mixup, 0),
        ("views.cutmix", v.cutmix, 0),
        ("supervision.label_weight", s.label_weight, 1),
        ("supervision.label_trust", s.label_trust, False),
        ("supervision.drop_worst", s.drop_worst, 0),
    ):
        if value != default:
            raise InputError(
                f"{name} is {value}, but with an adversary the label of every moved image is learned; leave it at "
                f"{default}, or adversary.steps at 0"
            )


def _check_mixing(s: Supervision) -> None:
    """InputError if supervision asks what became of the label of a view that has two."""
    for name in ("label_trust", "drop_worst"):
        if getattr(s, name):
            raise InputError(f"supervision.{name} is for views of one image; leave views.mixup and views.cutmix 0")
    if s.divergence == "decoupled":
        raise InputError(
            "supervision.divergence decoupled is for views of one image; leave views.mixup and views.cutmix 0"
        )


def _count_or_none(value: int | None) -> bool:
    return value is None or value >= 1


def _positive(value: float | None) -> bool:
    return value is None or 0 < value < math.inf


def _not_negative(value: float | None) -> bool:
    return value is None or 0 <= value < math.inf


def _rising(epochs: tuple[float, ...]) -> bool:
    return all(0 <= before < after < math.inf for before, after in pairwise((0.0, *epochs)))


def _side_or_none(side: int | None) -> bool:
    return side is None or 1 <= side <= MAX_SIDE
