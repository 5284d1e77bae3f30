"""Checks the values of a recipe: ranges, which are in the annotations, and rules between settings."""

from __future__ import annotations

import math
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Union

from annotated_types import Ge, Gt, Le, Lt, MinLen

from kdaug.config.datasets import ARRAY_DATASETS
from kdaug.config.recipe import MAX_FOLDS, Data, Optimization, Recipe, Supervision, Teacher, Views
from kdaug.errors import InputError

_FOLD = re.compile(r"(0|[1-9]\d*)/[1-9]\d*", re.ASCII)


def check(recipe: Recipe) -> Recipe:
    """Returns the recipe. Raises InputError for the first setting that is out of range or has no effect."""
    _check_ranges(recipe)
    _check_data(recipe.data)
    _check_balance(recipe)
    _check_unlabelled(recipe)
    _check_folds(recipe)
    _check_initial_weights(recipe)
    _check_teacher(recipe.teacher)
    _check_schedule(recipe.optimization)
    _check_supervision(recipe)
    views = Views(**vars(recipe.views))  # not ResolvedViews, which has no defaults
    _refuse_unused("views", views, {"soft_crop_deviation": ("soft",)}, f"views.crop {views.crop}", views.crop)
    if views.magnitude_factors is not None and recipe.data.name == "shards":
        raise InputError("views.magnitude_factors is not for data.name shards, whose images have no fixed order")
    if len(set(recipe.run.trackers)) < len(recipe.run.trackers):
        raise InputError(f"run.trackers is {', '.join(recipe.run.trackers)}, but must name each tracker once")
    if recipe.adversary.steps:
        _check_adversary(recipe.views, recipe.supervision)
    if recipe.views.mixes:
        _check_mixing(recipe.supervision, recipe.teacher)
    return recipe


def check_source(source: str) -> None:
    """Raises InputError unless `source`, a teacher.source, is none, train, or names one or several teachers."""
    if source in ("none", "train"):
        return
    for each in split_source(source):
        kind, _, name = each.partition(":")
        if each != "bundled" and not (kind in ("run", "file", "timm") and name):
            raise InputError(
                f"teacher.source is {source!r}, but must be none, train, bundled, run:DIR, file:PATH or timm:NAME, or "
                "several of the last four with commas between them"
            )


def split_source(source: str) -> list[str]:
    """The teachers that `source`, a teacher.source, names: one, or several with commas between them."""
    return re.split(r", *(?=(?:run|file|timm):|(?:bundled|none|train)(?:,|$))", source)


def check_weights(setting: str, weights: str | None) -> None:
    """Raises InputError unless `weights`, the value of `setting`, is None, run:DIR, file:PATH or timm:NAME."""
    if weights is not None:
        kind, _, name = weights.partition(":")
        if kind not in ("run", "file", "timm") or not name:
            hint = f"write file:{weights}" if Path(weights).is_file() else ""
            raise InputError(f"{setting} is {weights!r}, but must be run:DIR, file:PATH or timm:NAME", hint)


def describe_range(annotation: Any) -> str:
    """The range that a setting's annotation declares ("above 0 and at most 1, or None"); empty if it declares none."""
    kind, limits, optional = _parse_annotation(annotation)
    if typing.get_origin(kind) is tuple:
        each = describe_range(typing.get_args(kind)[0])
        return f"each {each}" if each else ""
    match limits:
        case (Ge(ge=low), Le(le=high)):
            bounds = f"from {low} to {high}"
        case _:
            bounds = " and ".join(_limit(limit)[1] for limit in limits)
    return f"{bounds}, or None" if bounds and optional else bounds


def _check_ranges(settings: object, prefix: str = "") -> None:
    """Checks every field of a dataclass, and of the dataclasses in it, against the range in its annotation."""
    for name, annotation in typing.get_type_hints(type(settings), include_extras=True).items():
        value = getattr(settings, name)
        if is_dataclass(value):
            _check_ranges(value, f"{prefix}{name}.")
        else:
            _check_value(f"{prefix}{name}", value, annotation)


def _check_value(name: str, value: Any, annotation: Any) -> None:
    kind, limits, _ = _parse_annotation(annotation)
    if value is None:
        return
    if typing.get_origin(kind) is dict:
        _check_arguments(name, value)
    elif typing.get_origin(kind) is tuple:
        for i, item in enumerate(value):
            _check_value(f"{name}[{i}]", item, typing.get_args(kind)[0])
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name} is {value}, but must be a finite number")
    elif not all(_limit(limit)[0](value) for limit in limits):
        raise InputError(f"{name} is {value!r}, but must be {describe_range(annotation)}")


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    for argument, value in arguments.items():
        if not argument.isidentifier():
            raise InputError(f"{name} has {argument!r}, which is not the name of an argument")
        if not isinstance(value, int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
            raise InputError(f"{name}.{argument} is {value!r}, but must be a number, text, true or false")


def _parse_annotation(annotation: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """The type, its limits (Ge, Gt, ...), and whether it may be None, of `T`, `Annotated[T, ...]` or `... | None`."""
    is_union = typing.get_origin(annotation) in (Union, types.UnionType)
    options = typing.get_args(annotation) if is_union else (annotation,)
    if typing.get_origin(options[0]) is not Annotated:
        return options[0], (), types.NoneType in options
    kind, *limits = typing.get_args(options[0])
    return kind, tuple(limits), types.NoneType in options


def _limit(limit: Any) -> tuple[Callable[[Any], bool], str]:
    """A limit of annotated-types as a predicate and as text."""
    match limit:
        case Ge(ge=bound):
            return lambda value: value >= bound, f"at least {bound}"
        case Gt(gt=bound):
            return lambda value: value > bound, f"above {bound}"
        case Le(le=bound):
            return lambda value: value <= bound, f"at most {bound}"
        case Lt(lt=bound):
            return lambda value: value < bound, f"below {bound}"
        case MinLen(min_length=length):
            return lambda value: len(value) >= length, f"at least {length} character(s) long"
    raise TypeError(f"unknown limit {limit!r}")


def _check_data(d: Data) -> None:
    _check_omitted_fold(d)
    if not d.measure_unused:
        return
    if d.encoded:
        raise InputError(
            f"data.measure_unused is for datasets in memory ({', '.join(ARRAY_DATASETS)}), not {d.name}",
            "leave it out; data.val_fraction sets how many images are used for validation",
        )
    if d.train_images is None:
        raise InputError(
            "data.measure_unused is set, but all training images are trained on", "set data.train_images as well"
        )


def _check_omitted_fold(d: Data) -> None:
    fold, folds = (0, 0) if d.omit_fold is None or not _FOLD.fullmatch(d.omit_fold) else d.omitted_fold or (0, 0)
    if d.omit_fold is not None and not (fold < folds and 2 <= folds <= MAX_FOLDS):
        raise InputError(
            f"data.omit_fold is {d.omit_fold!r}, but must be FOLD/FOLDS, such as 0/5 for the first of five",
            f"count folds from 0; there may be 2 to {MAX_FOLDS}",
        )


def _check_unlabelled(recipe: Recipe) -> None:
    """Images without labels have soft labels only, in every epoch, and nothing that depends on their label."""
    d, s, t = recipe.data, recipe.supervision, recipe.teacher
    if d.unlabelled is None:
        if d.unlabelled_share != Data().unlabelled_share:
            raise InputError("data.unlabelled_share has no effect without data.unlabelled", "set data.unlabelled")
        return
    if not d.unlabelled:
        raise InputError("data.unlabelled is empty", "give the directory of the unlabelled images, or leave it out")
    if d.encoded and d.name != "folder":
        raise InputError(f"data.unlabelled is not for data.name {d.name}", "use folder")
    if not d.encoded and (d.unlabelled != "unused" or d.train_images is None):
        raise InputError(
            f"data.unlabelled is {d.unlabelled!r}, but for {d.name} it must be unused, the images that "
            "data.train_images leaves out",
            "set both data.unlabelled unused and data.train_images",
        )
    if t.source == "none" and t.labels is None:
        raise InputError("data.unlabelled is set, but there is no teacher", "set teacher.source")
    for name, is_set in (
        ("data.measure_unused", d.measure_unused),
        ("views.magnitude_factors", recipe.views.magnitude_factors is not None),
        (f"data.balance {d.balance}", d.balance in ("sample", "loss")),
        ("mixup or CutMix", recipe.views.mixes),
        ("an adversary", recipe.adversary.steps > 0),
        ("supervision.when", s.when != "all"),
        ("supervision.weight 0", s.weight == 0),
        ("supervision.label_trust", s.label_trust),
        ("supervision.drop_worst", s.drop_worst > 0),
        ("supervision.min_confidence", s.min_confidence > 0),
        ("supervision.divergence decoupled", s.divergence == "decoupled"),
    ):
        if is_set:
            raise InputError(f"data.unlabelled cannot be combined with {name}", "leave one of them out")


def _check_balance(recipe: Recipe) -> None:
    """Sampling uses images of small classes several times in an epoch, in different views."""
    for name, is_set, reason in (
        ("teacher.labels", recipe.teacher.labels is not None, "which has one view of each image in an epoch"),
        ("mixup or CutMix", recipe.views.mixes, "which would mix them with images drawn without balance"),
    ):
        if recipe.data.balance == "sample" and is_set:
            raise InputError(
                f"data.balance sample cannot be combined with {name}, {reason}", "set data.balance to loss"
            )


def _check_folds(recipe: Recipe) -> None:
    """Of cross-fitted teachers, exactly one was trained without an image, and each gets another number of views."""
    if recipe.teacher.folds is None:
        return
    for name, is_set, reason in (
        ("data.omit_fold", recipe.data.omit_fold is not None, "which leaves out images by other folds"),
        ("data.unlabelled", recipe.data.unlabelled is not None, "whose images belong to no fold"),
        ("run.cuda_graphs", recipe.run.cuda_graphs, "which needs batches of one size"),
    ):
        if is_set:
            raise InputError(f"teacher.folds cannot be combined with {name}, {reason}", "leave out one of the two")


def _check_initial_weights(recipe: Recipe) -> None:
    student, channels = recipe.student, recipe.data.channels
    check_weights("student.weights", student.weights)
    check_weights("teacher.weights", recipe.teacher.weights)
    if student.pretrained and student.weights is not None:
        raise InputError(
            f"student.pretrained and student.weights {student.weights} are both set",
            "leave out student.pretrained, which is short for timm's weights of student.name",
        )
    _check_mean_std("student", student.mean, student.std)
    if student.mean is not None and student.weights is None:
        raise InputError("student.mean has no effect without student.weights", "leave out student.mean and student.std")
    if student.mean is not None and len(student.mean) != channels:
        raise InputError(f"student.mean has {len(student.mean)} value(s), but the images have {channels} channel(s)")


def _check_mean_std(section: str, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    if (mean is None) != (std is None):
        raise InputError(f"only one of {section}.mean and {section}.std is set", "set both or neither")
    if mean is not None and std is not None and (not std or len(mean) != len(std)):
        raise InputError(
            f"{section}.std has {len(std)} value(s), but {section}.mean has {len(mean)}", "give one a channel"
        )


def _check_teacher(t: Teacher) -> None:
    """With source none, all other settings may be set, so that changing only the source turns the teacher off."""
    check_source(t.source)
    kinds, users = _kinds(t.source), _teacher_users(t)
    if t.source != "none":
        _refuse_unused("teacher", t, users, f"teacher.source {t.source}", *kinds)
    _check_mean_std("teacher", t.mean, t.std)


def _kinds(source: str) -> list[str]:
    """The kinds of teacher in a teacher.source: train, run:, file:, timm:, bundled or none."""
    return ["".join(each.partition(":")[:2]) for each in split_source(source)]


def _teacher_users(t: Teacher) -> dict[str, tuple[str, ...]]:
    """For each setting of a teacher, the kinds of teacher with which it has an effect."""
    return {
        "network": ("train", "file:"),
        **dict.fromkeys(
            ("policy", "cutout", "epochs", "learning_rate", "weight_decay", "label_smoothing", "seed", "folds"),
            ("train",),
        ),
        "weights": ("train",),
        "arguments": ("train", "file:", "timm:"),
        **dict.fromkeys(("mean", "std"), ("file:",) if t.weights is None else ("file:", "train")),
    }


def without_unused_settings(teacher: Teacher, source: str) -> Teacher:
    """`teacher` with defaults for the settings that have no effect with `source`, another teacher.source."""
    unused = [name for name, kinds in _teacher_users(teacher).items() if not set(_kinds(source)) & set(kinds)]
    return replace(teacher, **{name: getattr(Teacher(), name) for name in unused})


def _check_schedule(o: Optimization) -> None:
    if not all(before < after for before, after in pairwise(o.milestones)):
        raise InputError(f"optimization.milestones is {o.milestones}, but must be in increasing order")
    if o.schedule == "milestones" and not o.milestones:
        raise InputError(
            "optimization.schedule is milestones, but optimization.milestones is empty", "set optimization.milestones"
        )
    if o.milestones and o.schedule != "milestones":
        raise InputError(
            f"optimization.milestones has no effect with optimization.schedule {o.schedule}",
            "set optimization.schedule to milestones, or leave optimization.milestones empty",
        )
    if o.clean_learning_rate is not None and not o.clean_epochs:
        raise InputError(
            "optimization.clean_learning_rate has no effect without clean epochs",
            "set optimization.clean_epochs as well",
        )
    for name, latest in (("warmup_epochs", o.warmup_epochs), ("milestones", max(o.milestones, default=0))):
        if latest >= o.epochs:
            raise InputError(
                f"optimization.{name} is {getattr(o, name)}, but must be below optimization.epochs, which is {o.epochs}"
            )
    if o.layer_decay is not None and o.decay_on != "weights":
        raise InputError("optimization.layer_decay needs optimization.decay_on weights", "set both")
    users = {"decay_rate": ("staircase", "milestones"), "decay_epochs": ("staircase",)}
    _refuse_unused("optimization", o, users, f"optimization.schedule {o.schedule}", o.schedule)


def _check_supervision(recipe: Recipe) -> None:
    s, t = recipe.supervision, recipe.teacher
    if s.method is not None:
        raise InputError(
            f"supervision.method is {s.method}, which is for flags and files",
            f"use kdaug.config.with_method(Supervision(...), {s.method!r})",
        )
    if s.when == "clean" and not recipe.optimization.clean_epochs:
        raise InputError("supervision.when is clean, but there are no clean epochs", "set optimization.clean_epochs")
    users = {
        **dict.fromkeys(("mass", "reading"), ("top-k",)),
        **dict.fromkeys(("scale_by_t2", "standardize_logits"), ("top-k", "decoupled", "dist")),
        "non_target_weight": ("decoupled",),
    }
    _refuse_unused("supervision", s, users, f"supervision.divergence {s.divergence}", s.divergence)
    for name in ("drop_worst", "min_confidence"):
        if s.divergence == "dist" and getattr(s, name):
            raise InputError(
                f"supervision.{name} cannot be used with supervision.divergence dist, whose correlation over the views "
                "of a batch contains all views",
                "unset it, or choose another divergence",
            )
    if s.visible_power is not None:
        _check_visible_power(recipe)
    if s.label_trust and s.label_weight == 0:
        raise InputError(
            "supervision.label_trust has no effect if supervision.label_weight is 0", "change one of the two settings"
        )
    if s.label_weight == 0 and t.source == "none" and t.labels is None:
        raise InputError(
            "supervision.label_weight is 0, but there is no teacher", "set teacher.source or supervision.label_weight"
        )


def _check_visible_power(recipe: Recipe) -> None:
    v, s = recipe.views, recipe.supervision
    if s.label_weight == 0:
        raise InputError(
            "supervision.visible_power has no effect if supervision.label_weight is 0", "change one of the two settings"
        )
    if v.crop not in ("pad", "soft"):
        raise InputError(
            f"supervision.visible_power is set, but views.crop {v.crop} leaves nothing of the image outside",
            "set views.crop to soft or pad",
        )
    for name, is_set in (
        ("mixup or CutMix", v.mixes),
        ("supervision.label_smoothing", s.label_smoothing > 0),
        ("an adversary", recipe.adversary.steps > 0),
    ):
        if is_set:
            raise InputError(f"supervision.visible_power cannot be combined with {name}", "leave one of them out")


def _refuse_unused(section: str, settings: Any, users: Mapping[str, Sequence[str]], choice: str, *chosen: str) -> None:
    """Raises InputError for a setting of `section` that is not at its default and has no effect.

    users: for each such setting, what has to be among `chosen` for it to have an effect. choice: `chosen` as text.
    """
    for name, values in users.items():
        value, default = getattr(settings, name), getattr(type(settings)(), name)
        if value != default and not set(chosen) & set(values):
            raise InputError(
                f"{section}.{name} is {value}, but has no effect with {choice}, only with {' or '.join(values)}",
                f"leave it at {default}",
            )


def _check_adversary(v: Views, s: Supervision) -> None:
    """AdvProp trains on the label of each adversarial image, so it excludes mixtures and other label weights."""
    for name, value, default in (
        ("views.mixup", v.mixup, 0),
        ("views.cutmix", v.cutmix, 0),
        ("supervision.label_weight", s.label_weight, 1),
        ("supervision.label_trust", s.label_trust, False),
        ("supervision.drop_worst", s.drop_worst, 0),
        ("supervision.min_confidence", s.min_confidence, 0),
    ):
        if value != default:
            raise InputError(
                f"{name} is {value}, but AdvProp trains on the label of every adversarial image",
                f"leave {name} at {default}, or adversary.steps at 0",
            )


def _check_mixing(s: Supervision, t: Teacher) -> None:
    """Mixtures have two labels, so settings that use the teacher's probability of one label exclude them."""
    if t.folds is not None:
        raise InputError(
            "teacher.folds cannot be combined with mixup or CutMix: a mixture of images of two folds has no teacher "
            "that was trained on neither",
            "leave views.mixup and views.cutmix at 0",
        )
    for name, uses_label in (
        ("label_trust", s.label_trust),
        ("drop_worst", s.drop_worst > 0),
        ("divergence decoupled", s.divergence == "decoupled"),
    ):
        if uses_label:
            raise InputError(
                f"supervision.{name} cannot be combined with mixup or CutMix", "leave views.mixup and views.cutmix at 0"
            )
