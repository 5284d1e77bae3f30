"""Ranges of single settings, as their annotations declare them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import typing
from typing import Annotated, Any

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen

from kdaug import InputError, config
from kdaug.config import Optimization, Recipe, check, describe_range, from_yaml

ANNOTATIONS = {
    f"{part}.{name}": annotation
    for part, kind in typing.get_type_hints(Recipe).items()
    for name, annotation in typing.get_type_hints(kind, include_extras=True).items()
}
WITHOUT_RANGE = {"student.mean", "teacher.mean", "student.arguments", "teacher.arguments"}

# Hand-picked facts: setting, values in its range, values outside.
FACTS = [
    ("data.image_size", (None, 1, 16384), (0, 16385)),
    ("data.val_fraction", (0.1, 0.9), (0.0, 1.0)),
    ("data.holdout", (0.0, 0.5), (-0.1, 1.0)),
    ("data.max_unreadable", (0.0, 1.0), (-0.1, 1.1)),
    ("views.min_area", (0.08, 1.0), (0.0, 1.1)),
    ("views.pad", (0, 16384), (-1, 16385)),
    ("views.mixup", (0.0, 100.0), (-0.1, 101.0)),
    ("views.seed", (None, 0, 2**63 - 1), (-1, 2**63)),
    ("teacher.weight_decay", (None, 0.0), (-1e-9,)),
    ("supervision.k", (1, 10**6), (0,)),
    ("supervision.temperature", (1e-9, 100.0), (0.0, -1.0)),
    ("adversary.steps", (0, 1000), (-1, 1001)),
    ("adversary.epsilon", (255.0,), (0.0, 256.0)),
    ("optimization.momentum", (0.9,), (0.0, 1.0)),
    ("optimization.clip_norm", (None, 1e-9), (0.0,)),
    ("optimization.clean_epochs", (0,), (-1,)),
    ("data.workers", (0, 1024), (-1, 1025)),
    ("run.threads", (None, 1, 1024), (0, 1025)),
    ("run.dir", (None, "a"), ("",)),
]

# What a setting needs so that no rule between settings refuses it.
NEEDS = {
    "student.std": {"student.mean": (0.5,), "student.weights": "file:w.pth"},
    "teacher.std": {"teacher.mean": (0.5,)},
    "data.unlabelled_share": {"data.train_images": 1, "data.unlabelled": "unused", "teacher.labels": "labels"},
    "views.soft_crop_deviation": {"views.crop": "soft"},
    "supervision.non_target_weight": {"supervision.divergence": "decoupled"},
    "supervision.label_weight": {"teacher.labels": "labels"},
    "optimization.milestones": {"optimization.schedule": "milestones"},
    "optimization.layer_decay": {"optimization.decay_on": "weights"},
}


def changed(name: str, value: Any) -> Recipe:
    """A recipe with this value of a setting, and with what it needs."""
    recipe = Recipe(optimization=Optimization(schedule="staircase", clean_epochs=1))
    for dotted, new in {**NEEDS.get(name, {}), name: value}.items():
        part, _, setting = dotted.partition(".")
        recipe = dataclasses.replace(recipe, **{part: dataclasses.replace(getattr(recipe, part), **{setting: new})})
    return recipe


def limits_of(annotation: Any) -> list[Any]:
    """The limits in an annotation: of the type itself, of an option of a union, or of the elements of a tuple."""
    if typing.get_origin(annotation) is Annotated:
        return list(typing.get_args(annotation)[1:])
    return [limit for part in typing.get_args(annotation) for limit in limits_of(part)]


def at_limit(limit: Any) -> tuple[Any, Any]:
    """The last value inside and the first value outside."""
    match limit:
        case Ge(ge=bound):
            return bound, -1 if bound == 0 else bound - 1
        case Gt(gt=bound):
            return math.nextafter(bound, math.inf), bound
        case Le(le=bound):
            return bound, bound + 1
        case Lt(lt=bound):
            return (bound - 1 if bound > 1 else math.nextafter(bound, 0)), bound
        case MinLen(min_length=length):
            return "x" * length, "x" * (length - 1)
    raise AssertionError(limit)


@pytest.mark.parametrize(("name", "inside", "outside"), FACTS, ids=[name for name, *_ in FACTS])
def test_known_ranges(name: str, inside: tuple[Any, ...], outside: tuple[Any, ...]) -> None:
    for value in inside:
        check(changed(name, value))
    for value in outside:
        with pytest.raises(InputError, match=rf"^{name} is .*, but must be "):
            check(changed(name, value))


@pytest.mark.parametrize("name", [name for name, annotation in ANNOTATIONS.items() if limits_of(annotation)])
def test_values_at_the_limits(name: str) -> None:
    annotation = ANNOTATIONS[name]
    is_tuple = typing.get_origin(annotation) is tuple or name in ("student.std", "teacher.std")
    for limit in limits_of(annotation):
        inside, outside = ((value,) if is_tuple else value for value in at_limit(limit))
        check(changed(name, inside))
        with pytest.raises(InputError) as error:
            check(changed(name, outside))
        value = outside[0] if is_tuple else outside
        index, words = "[0]" if is_tuple else "", describe_range(annotation).removeprefix("each ")
        assert str(error.value) == f"{name}{index} is {value!r}, but must be {words}"


def test_every_number_has_a_range() -> None:
    numbers = [name for name, annotation in ANNOTATIONS.items() if {"int", "float"} & set(words_of(annotation))]
    assert len(numbers) > 50
    assert {name for name in numbers if not limits_of(ANNOTATIONS[name])} == WITHOUT_RANGE


def words_of(annotation: Any) -> list[str]:
    """Names of the types in an annotation."""
    parts = [word for part in typing.get_args(annotation) for word in words_of(part)]
    return parts or [getattr(annotation, "__name__", "")]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, ""),
        (Annotated[int, Ge(1)], "at least 1"),
        (Annotated[int, Ge(0), Le(9)], "from 0 to 9"),
        (Annotated[float, Gt(0), Le(1)], "above 0 and at most 1"),
        (Annotated[float, Ge(0), Lt(1)] | None, "at least 0 and below 1, or None"),
        (tuple[Annotated[float, Gt(0)], ...], "each above 0"),
        (tuple[float, ...] | None, ""),
    ],
)
def test_describe_range(annotation: Any, words: str) -> None:
    assert describe_range(annotation) == words


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("name", ["views.magnitude", "optimization.clip_norm", "run.checkpoint_minutes"])
def test_numbers_must_be_finite(name: str, number: float) -> None:
    with pytest.raises(InputError, match=f"^{name} is {number}, but must be a finite number$"):
        check(changed(name, number))


@pytest.mark.parametrize("setting", ["mean", "std"])
def test_numbers_in_a_list_must_be_finite(setting: str) -> None:
    teacher = {"mean": (0.5, 0.5), "std": (0.5, 0.5), setting: (0.5, math.nan)}
    with pytest.raises(InputError, match=rf"^teacher\.{setting}\[1\] is nan, but must be a finite number$"):
        check(Recipe(teacher=config.Teacher(**teacher)))


def test_the_error_names_the_file() -> None:
    with pytest.raises(InputError, match=r"^recipe my\.yaml: optimization\.epochs is 0, but must be at least 1$"):
        from_yaml("optimization: {epochs: 0}", where="recipe my.yaml")


def test_every_setting_has_a_docstring() -> None:
    """The command line shows it as the setting's help."""
    kinds = [kind for kind in typing.get_type_hints(Recipe).values() if dataclasses.is_dataclass(kind)]
    undocumented, count = [], 0
    for part in ast.parse(inspect.getsource(config.recipe)).body:
        if isinstance(part, ast.ClassDef) and part.name in {kind.__name__ for kind in kinds}:
            for line, following in zip(part.body, [*part.body[1:], None], strict=True):
                count += isinstance(line, ast.AnnAssign)
                if isinstance(line, ast.AnnAssign) and not is_text(following):
                    undocumented.append(f"{part.name}.{ast.unparse(line.target)}")
            assert ast.get_docstring(part)
    assert undocumented == []
    assert count == sum(len(dataclasses.fields(kind)) for kind in kinds)


def is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and bool(node.value.value.strip())
    )
