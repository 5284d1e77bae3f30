"""Recipes as YAML: a recipe that is written is read back, and invalid files are refused with file and setting."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pytest
from annotated_types import Ge, Gt, Le, Lt
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from kdaug import InputError
from kdaug.config import (
    Data,
    Network,
    Optimization,
    Recipe,
    Run,
    Supervision,
    Teacher,
    Views,
    from_yaml,
    read_recipe,
    to_yaml,
)

# Strings that YAML would read as something else, or that need care in quoting.
ODD_STRINGS = [
    "no", "yes", "null", "~", "none", "1", "1e3", "-1E-5", ".5e1", "1.5", "0x1f", "1_000", "12:30", "2024-02-30",
    "nan", ".inf", "#x", "a #b", "a: b", "- a", "!tag", "&a", "*a", "{a}", "[a", "%d", "@x", "`", "'", '"', "\\", "",
    " ", " a ", "<<", "=", "?", "a\nb", "a\n", "\ta", "a\x85b", "\u2028",
    "ünïcödé ☂ 猫 🐈", "\x00\x07\x85\u2028\ufeff", "word " * 60,
]  # fmt: skip

text = st.one_of(st.sampled_from(ODD_STRINGS), st.text(st.characters(exclude_categories=["Cs"])))

TYPES = {
    str: text,
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
}
SCALARS = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text)
ARGUMENTS = st.dictionaries(st.from_regex(r"[a-z_][a-z_0-9]{0,9}", fullmatch=True), SCALARS, max_size=3)
SOURCES = st.builds("{}:{}".format, st.sampled_from(["run", "file", "timm"]), st.text(min_size=1))
SETTINGS = {
    "student.weights": st.none() | SOURCES,
    "teacher.weights": st.none() | SOURCES,
    "student.arguments": ARGUMENTS,
    "teacher.arguments": ARGUMENTS,
    "teacher.source": st.sampled_from(["none", "train"]) | SOURCES,
    "run.trackers": st.lists(st.sampled_from(["wandb", "mlflow", "trackio"]), unique=True).map(tuple),
    "data.unlabelled": st.sampled_from([None, None, "unused", "more photos"]),
    "data.omit_fold": st.none() | st.sampled_from(["0/2", "99/100"]),
    "run.dir": st.none() | text.filter(bool),
    "optimization.milestones": st.lists(st.floats(0, 1e300, exclude_min=True), unique=True).map(sorted).map(tuple),
}


def values_of(kind: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Valid values of the setting `name`, or recipes, from the annotation."""
    arguments, origin = typing.get_args(kind), typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        annotations = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{part: values_of(a, f"{name}.{part}".lstrip(".")) for part, a in annotations.items()})
    if name in SETTINGS:
        return SETTINGS[name]
    if origin in (Union, types.UnionType):
        return st.one_of([values_of(option) for option in arguments])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(values_of(arguments[0]), min_size=1, max_size=3).map(tuple)
    return numbers(*arguments) if origin is Annotated else TYPES[kind]


def numbers(kind: type, *limits: Any) -> st.SearchStrategy[Any]:
    """Numbers within limits of annotated-types."""
    bounds = {type(limit): next(iter(dataclasses.asdict(limit).values())) for limit in limits}
    low, high = bounds.get(Ge, bounds.get(Gt)), bounds.get(Le, bounds.get(Lt))
    if kind is int:
        return st.integers(low, high - 1 if Lt in bounds else high)
    high = 1e300 if high is None else high
    return st.floats(low, high, exclude_min=Gt in bounds, exclude_max=Lt in bounds, allow_infinity=False)


def valid(recipe: Recipe) -> Recipe:
    """`recipe` without the combinations of settings that the rules refuse."""
    recipe = replace(
        recipe,
        student=valid_student(recipe.student, recipe.data.channels),
        optimization=valid_optimization(recipe.optimization),
        teacher=valid_teacher(recipe.teacher),
    )
    if recipe.views.mixes:
        recipe = replace(recipe, teacher=replace(recipe.teacher, folds=None))
    if recipe.data.omit_fold is not None or recipe.run.cuda_graphs or recipe.data.unlabelled is not None:
        recipe = replace(recipe, teacher=replace(recipe.teacher, folds=None))
    data = recipe.data
    if not may_have_unlabelled(recipe):  # before the supervision is changed: it may only exclude less
        data = replace(data, unlabelled=None, unlabelled_share=Data().unlabelled_share)
    data = replace(data, measure_unused=data.measure_unused and not data.encoded and data.train_images is not None)
    s, default = recipe.supervision, Supervision()
    if s.when == "clean" and not recipe.optimization.clean_epochs:
        s = replace(s, when="all")
    views = replace(recipe.views, mixup=0.0, cutmix=0.0) if recipe.adversary.steps else recipe.views
    if recipe.adversary.steps:
        s = replace(s, label_weight=1.0, label_trust=False, drop_worst=0.0, min_confidence=0.0)
    if views.mixup or views.cutmix:
        s = replace(s, label_trust=False, drop_worst=0.0, divergence="hard" if s.divergence == "hard" else "top-k")
    if data.balance == "sample" and (views.mixes or recipe.teacher.labels is not None):
        data = replace(data, balance="loss")
    if recipe.teacher.source == "none" and recipe.teacher.labels is None:
        s = replace(s, label_weight=s.label_weight or 1.0)
    unused = {
        "hard": ("mass", "reading", "scale_by_t2", "standardize_logits", "non_target_weight"),
        "decoupled": ("mass", "reading"),
        "dist": ("mass", "reading", "non_target_weight"),
    }
    s = replace(s, **{name: getattr(default, name) for name in unused.get(s.divergence, ("non_target_weight",))})
    s = replace(s, method=None, label_trust=s.label_trust and s.label_weight > 0)
    if (
        views.crop not in ("pad", "soft")
        or views.mixes
        or s.label_smoothing
        or recipe.adversary.steps
        or not s.label_weight
    ):
        s = replace(s, visible_power=None)
    if views.crop != "soft":
        views = replace(views, soft_crop_deviation=Views().soft_crop_deviation)
    if data.name == "shards" or data.unlabelled is not None:
        views = replace(views, magnitude_factors=None)
    return replace(recipe, data=data, views=views, supervision=s)


def may_have_unlabelled(recipe: Recipe) -> bool:
    """Whether data.unlabelled of `recipe` is one of those that nothing else excludes."""
    data, supervision = recipe.data, recipe.supervision
    fits = data.name == "folder" or (
        not data.encoded and data.train_images is not None and data.unlabelled == "unused" and not data.measure_unused
    )
    excluded = (
        data.balance in ("sample", "loss"), supervision.weight == 0, recipe.views.mixes,
        recipe.adversary.steps > 0, supervision.when != "all",
        supervision.label_trust, supervision.drop_worst > 0, supervision.divergence == "decoupled",
        supervision.min_confidence > 0,
        recipe.teacher.source == "none" and recipe.teacher.labels is None, data.measure_unused,
    )  # fmt: skip
    return fits and not any(excluded)


def valid_student(student: Network, channels: int) -> Network:
    student = replace(student, weights=None if student.pretrained else student.weights)
    if student.weights is None or student.mean is None or student.std is None:
        return replace(student, mean=None, std=None)
    return replace(student, mean=(student.mean * 3)[:channels], std=(student.std * 3)[:channels])


def valid_teacher(teacher: Teacher) -> Teacher:
    channels = min(len(teacher.mean or ()), len(teacher.std or ()))
    if channels:
        teacher = replace(teacher, mean=teacher.mean[:channels], std=teacher.std[:channels])
    else:
        teacher = replace(teacher, mean=None, std=None)
    training = ["policy", "cutout", "epochs", "learning_rate", "weight_decay", "label_smoothing", "seed", "folds"]
    training.append("weights")
    unused = {"none": [], "train": [] if teacher.weights else ["mean", "std"], "file": training}
    names = unused.get(teacher.source.partition(":")[0], ["network", *training, "mean", "std"])
    if teacher.source.startswith("run:"):
        names = [*names, "arguments"]
    return replace(teacher, **{name: getattr(Teacher(), name) for name in names})


def valid_optimization(o: Optimization) -> Optimization:
    default = Optimization()
    return replace(
        o,
        milestones=tuple(m for m in o.milestones if m < o.epochs / 2) or (0.5,) if o.schedule == "milestones" else (),
        warmup_epochs=min(o.warmup_epochs, o.epochs / 2),
        clean_learning_rate=o.clean_learning_rate if o.clean_epochs else None,
        decay_rate=default.decay_rate if o.schedule == "cosine" else o.decay_rate,
        decay_epochs=o.decay_epochs if o.schedule == "staircase" else default.decay_epochs,
        layer_decay=o.layer_decay if o.decay_on == "weights" else None,
    )


@given(values_of(Recipe).map(valid))
@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes and is not needed
@example(Recipe())
@example(Recipe(teacher=Teacher(mean=(0.5, 1e-30, 1e22), std=(1.0, 2.0, 5e-324))))
@example(Recipe(data=Data(image_size=None), optimization=Optimization(clip_norm=None)))
def test_round_trip(recipe: Recipe) -> None:
    assert from_yaml(to_yaml(recipe)) == recipe


@pytest.mark.parametrize("string", ODD_STRINGS)
def test_odd_strings_stay_strings(string: str) -> None:
    assert from_yaml(to_yaml(Recipe(data=Data(root=string)))).data.root == string


def test_a_recipe_file_may_contain_any_text(tmp_path: Path) -> None:
    recipe = Recipe(run=Run(dir="läufe/猫 #1"), student=Network(name="no"))
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("yaml", ["", "# nothing set\n", "---"])
def test_an_empty_recipe_is_refused(yaml: str) -> None:
    with pytest.raises(InputError, match=r"recipe my.yaml is empty; kdaug recipes show NAME"):
        from_yaml(yaml, where="recipe my.yaml")


@pytest.mark.parametrize("yaml", ["{}", "views: {}"])
def test_missing_settings_keep_their_defaults(yaml: str) -> None:
    assert from_yaml(yaml) == Recipe()


def test_a_setting_changes_only_itself() -> None:
    assert from_yaml("views: {cutout: 16}") == Recipe(views=Views(cutout=16))


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "+1e-3", ".1e-2", "1.e-3", "0.001", "1.0e-3"])
def test_a_number_may_have_an_exponent(written: str) -> None:
    assert from_yaml(f"optimization: {{learning_rate: {written}}}").optimization.learning_rate == 0.001


def test_a_whole_number_becomes_a_float() -> None:
    rate = from_yaml("optimization: {learning_rate: 1}").optimization.learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("views: {polcy: none}", "views.polcy is not a setting; did you mean views.policy?"),
        ("teacher: {sorce: train}", "teacher.sorce is not a setting; did you mean teacher.source?"),
        ("vews: {policy: none}", "vews is not a setting; did you mean views?"),
        ("data: {name: fashion-minst}", "data.name is 'fashion-minst' (str); did you mean fashion-mnist?"),
        ("views: {crop: all}", "views.crop is 'all' (str); choose one of none, pad, soft, random-resized"),
    ],
)  # fmt: skip
def test_a_misspelling_is_named_with_file_and_suggestion(yaml: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    assert str(error.value) == f"recipe {path}: {message}"


def test_an_unknown_word_lists_all_choices() -> None:
    with pytest.raises(InputError, match=r"zzz is not a setting; choose one of data, views, .*, run$"):
        from_yaml("zzz: 1")


@pytest.mark.parametrize(
    ("yaml", "name", "expected"),
    [
        ("optimization: {epochs: 1.0}", "optimization.epochs", "a whole number"),
        ("optimization: {epochs: '1'}", "optimization.epochs", "a whole number"),
        ("optimization: {epochs: true}", "optimization.epochs", "a whole number"),
        ("optimization: {epochs: null}", "optimization.epochs", "a whole number"),
        ("optimization: {learning_rate: fast}", "optimization.learning_rate", "a finite number"),
        ("optimization: {learning_rate: true}", "optimization.learning_rate", "a finite number"),
        ("optimization: {learning_rate: .nan}", "optimization.learning_rate", "a finite number"),
        ("optimization: {learning_rate: 1e999}", "optimization.learning_rate", "a finite number"),
        ("optimization: {clip_norm: none}", "optimization.clip_norm", "a finite number or null"),
        ("views: {flip: 1}", "views.flip", "true or false"),
        ("views: {policy: 3}", "views.policy", "text"),
        ("views: {policy: [none]}", "views.policy", "text"),
        ("run: {dir: 2024-01-01}", "run.dir", "text or null"),
        ("teacher: {mean: 0.5}", "teacher.mean", "a list of numbers or null"),
        ("teacher: {mean: [0.5, x]}", "teacher.mean[1]", "a finite number"),
        ("data: none", "data", "a mapping of settings"),
        ("data: null", "data", "a mapping of settings"),
        ("[data]", "the file", "a mapping of settings"),
    ],
)
def test_a_wrong_type_is_named_with_the_right_one(yaml: str, name: str, expected: str) -> None:
    with pytest.raises(InputError) as error:
        from_yaml(yaml, where="recipe my.yaml")
    assert str(error.value).startswith(f"recipe my.yaml: {name} must be {expected}, not ")


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/object/apply:os.mkdir"])
def test_a_tag_that_runs_code_is_refused(tag: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(InputError, match="tag"):
        from_yaml(f"run: {{dir: {tag} ['{trace}']}}")
    assert not trace.exists()


@pytest.mark.parametrize("value", ["!!python/name:os.system", "!own x", "!!str no", "!!int '3'", "!!int x", "!!bool x"])
def test_any_tag_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"^recipe my\.yaml: .*tag"):
        from_yaml(f"run: {{dir: {value}}}", where="recipe my.yaml")


@pytest.mark.parametrize("yaml", ["run: {seed: 1, dir: a, seed: 2}", "run: {seed: 1}\nviews: {pad: 1}\nrun: {seed: 2}"])
def test_a_repeated_key_is_refused(yaml: str) -> None:
    with pytest.raises(InputError, match=r"^recipe my.yaml: .*key (seed|run) is repeated"):
        from_yaml(yaml, where="recipe my.yaml")


@pytest.mark.parametrize(
    "yaml",
    [
        "data: [", "a: b: c", "? [a]\n: 1", "\x00", "a: 1\n---\nb: 2", "data: *nowhere", "&a {data: *a}",
        "run: {dir: 2024-13-45}", "optimization: {learning_rate: 1" + "0" * 400 + "}",
        "run: {seed: 1" + "0" * 5000 + "}",
    ],
    ids=lambda yaml: yaml[:30],
)  # fmt: skip
def test_invalid_yaml_is_refused(yaml: str) -> None:
    with pytest.raises(InputError, match=r"^recipe my\.yaml: "):
        from_yaml(yaml, where="recipe my.yaml")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("run: {dir: läufe}".encode("latin-1"))
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(InputError, match=r"cannot be read|does not exist") as error:
            read_recipe(path)
        assert str(path) in str(error.value)


def test_the_way_out_is_kept_apart_from_the_problem() -> None:
    with pytest.raises(InputError) as error:
        from_yaml("optimization: {schedule: milestones}", where="my.yaml")
    assert error.value.problem == ("my.yaml: optimization.schedule is milestones, but optimization.milestones is empty")
    assert error.value.hint == "set optimization.milestones"
