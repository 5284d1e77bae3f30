"""Recipes as YAML: what is written is read back, and what is not a recipe is refused with its name and its place."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, Union

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from kdaug import InputError, config
from kdaug.config import (
    Data,
    Network,
    Optimization,
    Recipe,
    Run,
    Supervision,
    Teacher,
    Views,
    check,
    from_yaml,
    read_recipe,
    to_yaml,
)

# Strings that YAML would take for something else, or that need care in quoting.
ODD_STRINGS = [
    "no", "yes", "null", "~", "none", "1", "1e3", "-1E-5", ".5e1", "1.5", "0x1f", "1_000", "12:30", "2024-02-30",
    "nan", ".inf", "#x", "a #b", "a: b", "- a", "!tag", "&a", "*a", "{a}", "[a", "%d", "@x", "`", "'", '"', "\\", "",
    " ", " a ", "<<", "=", "?", "a\nb", "a\n", "\ta", "a\x85b", "\u2028",
    "ünïcödé ☂ 猫 🐈", "\x00\x07\x85\u2028\ufeff", "word " * 60,
]  # fmt: skip

text = st.one_of(st.sampled_from(ODD_STRINGS), st.text(st.characters(exclude_categories=["Cs"])))
finite = st.floats(allow_nan=False, allow_infinity=False)
above_0 = st.floats(0, exclude_min=True, allow_infinity=False)
from_0 = st.floats(0, allow_infinity=False)
between_0_and_1 = st.floats(0, 1, exclude_min=True, exclude_max=True)
seeds = st.integers(0, 2**63 - 1)

# The ranges that the recipe promises, of the settings that have one; None stands where the type allows it.
kinds = st.sampled_from(["run", "file", "timm"])
VALID = {
    "data.train_images": st.integers(1), "data.image_size": st.integers(1, 16384), "data.val_fraction": between_0_and_1,
    "data.max_unreadable": st.floats(0, 1), "data.workers": st.integers(0, 1024), "views.pad": st.integers(0, 16384),
    "views.min_area": st.floats(0, 1, exclude_min=True), "views.cutout": st.integers(0, 16384), "views.seed": seeds,
    "teacher.cutout": st.integers(0, 16384), "teacher.epochs": st.integers(1), "teacher.seed": seeds,
    "teacher.image_size": st.integers(1, 16384), "supervision.weight": from_0, "supervision.k": st.integers(1),
    "supervision.temperature": above_0, "optimization.epochs": st.integers(1),
    "optimization.global_batch": st.integers(1), "optimization.learning_rate": above_0,
    "optimization.momentum": between_0_and_1, "optimization.weight_decay": from_0, "optimization.clip_norm": above_0,
    "teacher.source": st.sampled_from(["none", "train"]) | st.builds("{}:{}".format, kinds, st.text(min_size=1)),
    "views.magnitude": from_0, "run.seed": seeds, "run.threads": st.integers(1, 1024),
    "run.evaluate_every": st.integers(1), "run.checkpoint_minutes": from_0, "run.checkpoint_steps": st.integers(1),
    "run.device_batch": st.integers(1), "run.evaluate_size": st.integers(1, 16384),
    "data.holdout": st.floats(0, 1, exclude_max=True), "teacher.learning_rate": above_0, "teacher.weight_decay": from_0,
    "adversary.steps": st.integers(0, 1000), "adversary.epsilon": st.floats(0, 255, exclude_min=True),
    "adversary.step_size": st.floats(0, 255, exclude_min=True),
    "student.batch_norm_momentum": st.floats(0, 1, exclude_min=True), "run.dir": text.filter(bool),
    "student.drop_path": st.floats(0, 1, exclude_max=True), "student.dropout": st.floats(0, 1, exclude_max=True),
    "supervision.label_smoothing": st.floats(0, 1, exclude_max=True), "optimization.clean_epochs": st.integers(0),
    "optimization.clean_learning_rate": above_0, "optimization.decay_rate": between_0_and_1,
    "optimization.decay_epochs": above_0, "optimization.warmup_epochs": from_0,
    "optimization.ema_decay": between_0_and_1, "views.mixup": st.floats(0, 100), "views.cutmix": st.floats(0, 100),
    "supervision.non_target_weight": from_0,
    "supervision.mass": st.floats(0, 1, exclude_min=True), "supervision.label_weight": from_0,
    "supervision.drop_worst": st.floats(0, 1, exclude_max=True),
}  # fmt: skip
VALID_TUPLES = {
    "run.trackers": st.lists(st.sampled_from(["wandb", "mlflow", "trackio"]), unique=True).map(tuple),
    "optimization.milestones": st.lists(above_0, unique=True).map(sorted).map(tuple),
}
OF_TYPE = {str: text, bool: st.booleans(), int: st.integers(), float: finite, type(None): st.none()}


def values_of(kind: Any, name: str) -> st.SearchStrategy[Any]:
    """Valid values of the setting `name`, from its declared type."""
    if dataclasses.is_dataclass(kind):
        types_of = typing.get_type_hints(kind)
        parts = {
            field.name: values_of(types_of[field.name], f"{name}.{field.name}".lstrip("."))
            for field in dataclasses.fields(kind)
        }
        return st.builds(kind, **parts)
    if typing.get_origin(kind) in (Union, types.UnionType):
        return st.one_of([values_of(option, name) for option in typing.get_args(kind)])
    if typing.get_origin(kind) is Literal:
        return st.sampled_from(typing.get_args(kind))
    if name in VALID_TUPLES:
        return VALID_TUPLES[name]
    if typing.get_origin(kind) is tuple:
        return st.lists(finite, min_size=1, max_size=3).map(tuple)
    return st.none() if kind is type(None) else VALID.get(name, OF_TYPE[kind])


def unused_by(source: str) -> list[str]:
    """The settings of a teacher from there that must be at their default."""
    training = ["policy", "cutout", "epochs", "learning_rate", "weight_decay", "seed"]
    loading = ["mean", "std"]
    unused = {"none": [], "train": loading, "file": training}
    return unused.get(source.partition(":")[0], ["network", *training, *loading])


def with_what_belongs_together(recipe: Recipe) -> Recipe:
    teacher = recipe.teacher
    if teacher.mean is None or teacher.std is None:
        teacher = dataclasses.replace(teacher, mean=None, std=None)
    else:
        channels = min(len(teacher.mean), len(teacher.std))
        positive = tuple(abs(value) or 1.0 for value in teacher.std[:channels])
        teacher = dataclasses.replace(teacher, mean=teacher.mean[:channels], std=positive)
    teacher = dataclasses.replace(teacher, **{name: getattr(Teacher(), name) for name in unused_by(teacher.source)})
    o, default = recipe.optimization, Optimization()
    optimization = dataclasses.replace(
        o,
        milestones=tuple(m for m in o.milestones if m < o.epochs / 2) or (0.5,) if o.schedule == "milestones" else (),
        warmup_epochs=min(o.warmup_epochs, o.epochs / 2),
        clean_learning_rate=o.clean_learning_rate if o.clean_epochs else None,
        decay_rate=default.decay_rate if o.schedule == "cosine" else o.decay_rate,
        decay_epochs=o.decay_epochs if o.schedule == "staircase" else default.decay_epochs,
    )
    supervision = recipe.supervision
    if supervision.when == "clean" and not o.clean_epochs:
        supervision = dataclasses.replace(supervision, when="all")
    unused = {"hard": ("mass", "reading", "scale_by_t2", "non_target_weight"), "decoupled": ("mass", "reading")}
    for name in unused.get(supervision.divergence, ("non_target_weight",)):
        supervision = dataclasses.replace(supervision, **{name: getattr(Supervision(), name)})
    views = recipe.views
    if recipe.adversary.steps:
        views = dataclasses.replace(views, mixup=0.0, cutmix=0.0)
        supervision = dataclasses.replace(supervision, label_weight=1.0, label_trust=False, drop_worst=0.0)
    if views.mixup or views.cutmix:
        supervision = dataclasses.replace(
            supervision,
            label_trust=False,
            drop_worst=0.0,
            divergence="hard" if supervision.divergence == "hard" else "top-k",
            non_target_weight=Supervision().non_target_weight,
        )
    if teacher.source == "none" and teacher.labels is None:
        supervision = dataclasses.replace(supervision, label_weight=supervision.label_weight or 1.0)
    if supervision.label_weight == 0:
        supervision = dataclasses.replace(supervision, label_trust=False)
    return dataclasses.replace(recipe, views=views, teacher=teacher, supervision=supervision, optimization=optimization)


recipes = values_of(Recipe, "").map(with_what_belongs_together)


@given(recipes)
@settings(phases=[Phase.explicit, Phase.generate])  # shrinking takes minutes; the difference shows without it
@example(Recipe())
@example(Recipe(teacher=Teacher(mean=(0.5, 1e-30, 1e22), std=(1.0, 2.0, 5e-324))))
@example(Recipe(data=Data(image_size=None), optimization=Optimization(clip_norm=None)))
def test_a_recipe_written_as_yaml_reads_back_as_itself(recipe: Recipe) -> None:
    assert from_yaml(to_yaml(recipe)) == recipe


@pytest.mark.parametrize("string", ODD_STRINGS)
def test_a_string_that_looks_like_something_else_stays_a_string(string: str) -> None:
    assert from_yaml(to_yaml(Recipe(data=Data(root=string)))).data.root == string


def test_a_recipe_file_holds_any_text(tmp_path: Path) -> None:
    recipe = Recipe(run=Run(dir="läufe/猫 #1"), student=Network(name="no"))
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    assert read_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("yaml", ["", "# nothing set\n", "---"])
def test_an_empty_recipe_is_a_mistake(yaml: str) -> None:
    with pytest.raises(InputError, match=r"recipe my.yaml is empty; kdaug recipes show NAME"):
        from_yaml(yaml, where="recipe my.yaml")


@pytest.mark.parametrize("yaml", ["{}", "views: {}"])
def test_settings_left_out_keep_their_defaults(yaml: str) -> None:
    assert from_yaml(yaml) == Recipe()


def test_a_setting_given_changes_that_setting_alone() -> None:
    assert from_yaml("views: {cutout: 16}") == Recipe(views=Views(cutout=16))


@pytest.mark.parametrize("written", ["1e-3", "1E-3", "+1e-3", ".1e-2", "1.e-3", "0.001", "1.0e-3"])
def test_a_number_with_an_exponent_is_a_number(written: str) -> None:
    assert from_yaml(f"optimization: {{learning_rate: {written}}}").optimization.learning_rate == 0.001


def test_a_whole_number_serves_where_a_fraction_is_wanted() -> None:
    rate = from_yaml("optimization: {learning_rate: 1}").optimization.learning_rate
    assert (rate, type(rate)) == (1.0, float)


@pytest.mark.parametrize(
    ("yaml", "sentence"),
    [
        ("views: {polcy: none}", "views.polcy is not a setting; did you mean views.policy?"),
        ("teacher: {sorce: train}", "teacher.sorce is not a setting; did you mean teacher.source?"),
        ("vews: {policy: none}", "vews is not a setting; did you mean views?"),
        ("data: {name: fashion-minst}", "data.name is 'fashion-minst' (str); did you mean fashion-mnist?"),
        ("views: {crop: all}", "views.crop is 'all' (str); there are none, pad, random-resized"),
    ],
)  # fmt: skip
def test_a_misspelling_is_named_with_its_file_and_the_nearest_word(yaml: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(yaml)
    with pytest.raises(InputError) as error:
        read_recipe(path)
    assert str(error.value) == f"recipe {path}: {sentence}"


def test_a_word_near_to_none_gets_all_the_choices() -> None:
    with pytest.raises(InputError, match=r"zzz is not a setting; there are data, views, .*, run$"):
        from_yaml("zzz: 1")


@pytest.mark.parametrize(
    ("yaml", "name", "wanted"),
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
        ("[data]", "the whole", "a mapping of settings"),
    ],
)
def test_a_value_of_a_wrong_type_is_named_with_what_is_wanted(yaml: str, name: str, wanted: str) -> None:
    with pytest.raises(InputError) as error:
        from_yaml(yaml, where="recipe my.yaml")
    assert str(error.value).startswith(f"recipe my.yaml: {name} must be {wanted}, not ")


@pytest.mark.parametrize("tag", ["!!python/object/apply:pathlib.Path.touch", "!!python/object/apply:os.mkdir"])
def test_a_tag_that_runs_code_is_refused_and_nothing_runs(tag: str, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    with pytest.raises(InputError, match="tag"):
        from_yaml(f"run: {{dir: {tag} ['{trace}']}}")
    assert not trace.exists()


@pytest.mark.parametrize("value", ["!!python/name:os.system", "!own x", "!!str no", "!!int '3'", "!!int x", "!!bool x"])
def test_any_tag_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"^recipe my\.yaml: .*tag"):
        from_yaml(f"run: {{dir: {value}}}", where="recipe my.yaml")


@pytest.mark.parametrize("yaml", ["run: {seed: 1, dir: a, seed: 2}", "run: {seed: 1}\nviews: {pad: 1}\nrun: {seed: 2}"])
def test_a_key_given_twice_is_an_error(yaml: str) -> None:
    with pytest.raises(InputError, match=r"^recipe my.yaml: .*(seed|run) stands more than once"):
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
def test_broken_yaml_is_an_error_at_its_place(yaml: str) -> None:
    with pytest.raises(InputError, match=r"^recipe my\.yaml: "):
        from_yaml(yaml, where="recipe my.yaml")


@pytest.mark.parametrize(
    ("yaml", "name"),
    [
        ("data: {train_images: 0}", "data.train_images"),
        ("data: {val_fraction: 0}", "data.val_fraction"),
        ("data: {val_fraction: 1}", "data.val_fraction"),
        ("data: {max_unreadable: 1.01}", "data.max_unreadable"),
        ("data: {workers: -1}", "data.workers"),
        ("views: {pad: -1}", "views.pad"),
        ("views: {pad: 16385}", "views.pad"),
        ("views: {cutout: 16385}", "views.cutout"),
        ("data: {image_size: 16385}", "data.image_size"),
        ("data: {workers: 1025}", "data.workers"),
        ("teacher: {image_size: 0}", "teacher.image_size"),
        ("views: {min_area: 0}", "views.min_area"),
        ("views: {cutout: -1}", "views.cutout"),
        ("views: {seed: -1}", "views.seed"),
        ("teacher: {epochs: 0}", "teacher.epochs"),
        ("supervision: {weight: -0.1}", "supervision.weight"),
        ("supervision: {k: 0}", "supervision.k"),
        ("supervision: {temperature: 0}", "supervision.temperature"),
        ("supervision: {temperature: -1}", "supervision.temperature"),
        ("optimization: {epochs: 0}", "optimization.epochs"),
        ("optimization: {global_batch: 0}", "optimization.global_batch"),
        ("optimization: {learning_rate: 0}", "optimization.learning_rate"),
        ("optimization: {momentum: 1}", "optimization.momentum"),
        ("optimization: {weight_decay: -1e-9}", "optimization.weight_decay"),
        ("optimization: {clip_norm: 0}", "optimization.clip_norm"),
        ("run: {seed: 9223372036854775808}", "run.seed"),
        ("run: {threads: 0}", "run.threads"),
        ("run: {threads: 1025}", "run.threads"),
        ("run: {evaluate_every: 0}", "run.evaluate_every"),
        ("run: {checkpoint_minutes: -1}", "run.checkpoint_minutes"),
        ("run: {checkpoint_steps: 0}", "run.checkpoint_steps"),
        ("run: {device_batch: 0}", "run.device_batch"),
        ("run: {evaluate_size: 16385}", "run.evaluate_size"),
        ("run: {trackers: [wandb, wandb]}", "run.trackers"),
        ("student: {drop_path: 1}", "student.drop_path"),
        ("student: {dropout: -0.1}", "student.dropout"),
        ("supervision: {label_smoothing: 1}", "supervision.label_smoothing"),
        ("supervision: {mass: 0}", "supervision.mass"),
        ("supervision: {mass: 1.01}", "supervision.mass"),
        ("supervision: {label_weight: -1}", "supervision.label_weight"),
        ("supervision: {drop_worst: 1}", "supervision.drop_worst"),
        ("supervision: {divergence: decoupled, non_target_weight: -1}", "supervision.non_target_weight"),
        ("optimization: {clean_epochs: -1}", "optimization.clean_epochs"),
        ("optimization: {clean_learning_rate: 0}", "optimization.clean_learning_rate"),
        ("optimization: {decay_rate: 1}", "optimization.decay_rate"),
        ("optimization: {decay_epochs: 0}", "optimization.decay_epochs"),
        ("optimization: {warmup_epochs: -1}", "optimization.warmup_epochs"),
        ("optimization: {ema_decay: 1}", "optimization.ema_decay"),
        ("optimization: {schedule: milestones, milestones: [2, 2]}", "optimization.milestones"),
    ],
)
def test_a_value_out_of_its_range_is_named(yaml: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"^recipe my\.yaml: {name} is .*, but must be "):
        from_yaml(yaml, where="recipe my.yaml")


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("{label_weight: 0}", "supervision.label_weight is 0, but there is no teacher; give teacher.source"),
        (
            "{divergence: hard, mass: 0.5}",
            "supervision.mass is 0.5, but supervision.divergence hard makes no use of it",
        ),
        ("{divergence: hard, scale_by_t2: false}", "supervision.scale_by_t2 is False"),
        ("{divergence: decoupled, reading: grouped}", "supervision.reading is grouped"),
        ("{non_target_weight: 2}", "supervision.non_target_weight is 2.0, but .* top-k makes no use of it"),
    ],
)
def test_supervision_that_says_nothing_or_is_not_used_is_named(yaml: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        from_yaml(f"supervision: {yaml}")


@pytest.mark.parametrize("std", [(0.5,), (0.5, 0.0), (0.5, -1.0), (0.5, 0.5, 0.5), ()])
def test_a_teachers_std_has_a_positive_value_for_each_of_its_mean(std: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"teacher\.std"):
        check(Recipe(teacher=Teacher(mean=(0.5, 0.5), std=std)))


@pytest.mark.parametrize("given", [{"mean": (0.5,)}, {"std": (0.5,)}])
def test_a_teachers_mean_and_std_come_together(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"teacher\.mean and teacher\.std"):
        check(Recipe(teacher=Teacher(**given)))


@pytest.mark.parametrize("given", [{"milestones": (1.0,)}, {"schedule": "milestones"}])
def test_milestones_and_their_schedule_come_together(given: dict[str, Any]) -> None:
    with pytest.raises(
        InputError, match=r"optimization\.(milestones is for optimization\.schedule|schedule is milestones, but)"
    ):
        check(Recipe(optimization=Optimization(**given)))


@pytest.mark.parametrize("number", [math.inf, math.nan])
@pytest.mark.parametrize("name", ["views.magnitude", "optimization.clip_norm", "run.checkpoint_minutes"])
def test_a_number_that_no_file_may_hold_is_refused_in_python_too(name: str, number: float) -> None:
    part, setting = name.split(".")
    recipe = Recipe()
    with pytest.raises(InputError, match=f"{name} is {number}, but must be"):
        check(dataclasses.replace(recipe, **{part: dataclasses.replace(getattr(recipe, part), **{setting: number})}))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("run: {dir: läufe}".encode("latin-1"))
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(InputError, match=r"cannot be read|does not exist") as error:
            read_recipe(path)
        assert str(path) in str(error.value)


def test_every_setting_has_a_docstring() -> None:
    """The command line shows it as the setting's help."""
    undocumented, seen = [], 0
    for part in ast.parse(inspect.getsource(config.recipe)).body:
        if isinstance(part, ast.ClassDef) and part.name in {cls.__name__ for cls in parts_of_a_recipe()}:
            for line, following in zip(part.body, [*part.body[1:], None], strict=True):
                seen += isinstance(line, ast.AnnAssign)
                if isinstance(line, ast.AnnAssign) and not is_text(following):
                    undocumented.append(f"{part.name}.{ast.unparse(line.target)}")
            assert ast.get_docstring(part)
    assert undocumented == []
    assert seen == sum(len(dataclasses.fields(kind)) for kind in parts_of_a_recipe())


def parts_of_a_recipe() -> list[type]:
    return [kind for kind in typing.get_type_hints(Recipe).values() if dataclasses.is_dataclass(kind)]


def is_text(node: ast.stmt | None) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and bool(node.value.value.strip())
    )


@pytest.mark.parametrize(
    ("optimization", "said"),
    [
        ({"clean_learning_rate": 0.3}, "clean_learning_rate is for optimization.clean_epochs"),
        ({"warmup_epochs": 5.0, "epochs": 2}, "warmup_epochs is 5.0, but must end before optimization.epochs 2"),
        ({"schedule": "milestones", "milestones": (1.0, 7.0), "epochs": 2}, "milestones is .* must end before"),
        ({"decay_rate": 0.5}, "decay_rate is 0.5, but optimization.schedule cosine makes no use of it"),
        ({"schedule": "milestones", "milestones": (1.0,), "decay_epochs": 1.0}, "only staircase; leave it at 2.4"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(optimization: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check(Recipe(optimization=Optimization(**optimization)))


def test_a_teacher_cannot_look_on_in_clean_epochs_alone_when_there_are_none() -> None:
    with pytest.raises(InputError, match=r"supervision\.when is clean, but there are no clean epochs"):
        check(Recipe(supervision=Supervision(when="clean")))
