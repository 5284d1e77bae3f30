"""From a request to a concrete recipe: what is chosen, what the user's settings and an existing run keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.hub import fill_cache, published_weights
from support.ranks import plan_rank, start_ranks
from support.recipes import SMALL_PHOTOS, with_settings

from kdaug.config import Recipe, from_yaml, to_dict, to_yaml
from kdaug.data import Dataset
from kdaug.errors import InputError
from kdaug.photos import Request, plan_recipe
from kdaug.photos.budget import NetworkSeconds, RunSeconds
from kdaug.photos.rules import CHOSEN
from kdaug.training import train

MEASURED = RunSeconds(4, NetworkSeconds(2.0, 0.5, 1.0), NetworkSeconds(2.0, 0.4, 1.0), 3.0)
MakeRequest = Callable[..., Request]


@pytest.fixture
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdaug.photos.plan.measure_run", lambda *arguments: MEASURED)


def value(recipe: Recipe, name: str) -> Any:
    section, _, key = name.partition(".")
    return to_dict(recipe)[section][key]


@pytest.mark.usefixtures("_measured")
def test_all_that_is_not_given_is_chosen(request_for: MakeRequest, console: Console) -> None:
    recipe = plan_recipe(request_for({"data.image_size": "not given"}), console)
    chosen = {name: value(recipe, name) for name in CHOSEN}
    assert chosen == {
        "student.name": "wide_resnet10_1", "student.pretrained": False, "teacher.weights": None,
        "data.image_size": 160, "optimization.global_batch": 8,
        "optimization.optimizer": "adamw", "optimization.learning_rate": 1.8e-4, "optimization.weight_decay": 0.05,
        "optimization.decay_on": "weights", "optimization.epochs": 100, "teacher.epochs": 100,
        "optimization.warmup_epochs": 5.0, "optimization.ema_decay": None,
        "optimization.precision": "auto", "run.evaluate_every": 5,
    }  # fmt: skip
    out = console.file.getvalue()
    start = "the student starts from random weights: timm has no published weights for wide_resnet10_1; use a run or "
    assert start in out
    assert "chosen for 33 training images, from scratch, CPU: data.image_size 160, optimization.global_batch 8" in out
    # 400 steps of 0.4 s and 0.5 s, 20 evaluations and the start of each network
    assert "estimated time from now: 7.0 minutes (teacher 3.0, student 3.7, checks and last evaluations 0.2)" in out


GIVEN = {
    "student.name": "wide_resnet16_1",
    "data.image_size": 24, "optimization.global_batch": 11, "optimization.optimizer": "sgd",
    "optimization.learning_rate": 0.07, "optimization.weight_decay": 0.0, "optimization.decay_on": "all",
    "optimization.epochs": 50, "teacher.epochs": 3, "optimization.warmup_epochs": 0.0, "optimization.ema_decay": None,
    "optimization.precision": "bfloat16", "run.evaluate_every": 7, "student.pretrained": False, "teacher.weights": None,
}  # fmt: skip
"""A value for all chosen settings; some are the recipe's own, which a comparison with them would not find."""


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize("name", CHOSEN)
def test_a_given_setting_is_kept(request_for: MakeRequest, console: Console, name: str) -> None:
    recipe = plan_recipe(request_for({name: GIVEN[name]}), console)
    assert value(recipe, name) == GIVEN[name]
    (line,) = (line for line in console.file.getvalue().splitlines() if line.startswith("chosen for"))
    assert f" {name} " not in line


@pytest.mark.usefixtures("_measured")
def test_the_rate_follows_the_given_optimizer_and_batch(request_for: MakeRequest, console: Console) -> None:
    given = {"optimization.optimizer": "sgd", "optimization.global_batch": 32}
    recipe = plan_recipe(request_for(given), console)
    assert (recipe.optimization.learning_rate, recipe.optimization.weight_decay) == (0.013, 1e-4)


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize(
    ("name", "given", "precision"),
    [
        ("wide_resnet10_1", {}, "auto"),
        ("resnext50_32x4d", {}, "auto"),  # its groups have several channels
        ("mobilenetv3_small_050", {}, "float32"),
        ("mobilenetv3_small_050", {"optimization.precision": "auto"}, "auto"),
    ],
)
def test_networks_with_depthwise_convolutions_are_trained_in_float32(
    request_for: MakeRequest, console: Console, name: str, given: dict[str, Any], precision: str
) -> None:
    assert plan_recipe(request_for({"student.name": name, **given}), console).optimization.precision == precision


@pytest.mark.usefixtures("_measured")
@pytest.mark.parametrize(
    ("minutes", "settings", "epochs", "teacher_epochs"),
    [
        (1.0, {}, 6, 6),  # 54 s without the reserve: 2 s passed, 17 s fixed, then 5.6 s an epoch
        (1.0, {"teacher.epochs": 1}, 10, 1),
        (600.0, {}, 300, 300),  # as many as the rule for GPUs
    ],
)
def test_epochs_follow_from_the_minutes(
    request_for: MakeRequest,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    settings: dict[str, Any],
    epochs: int,
    teacher_epochs: int,
) -> None:
    monkeypatch.setattr("kdaug.photos.plan.time.monotonic", lambda: 2.0)
    recipe = plan_recipe(request_for(settings, minutes), console)
    assert (recipe.optimization.epochs, recipe.teacher.epochs) == (epochs, teacher_epochs)


@pytest.mark.parametrize(
    ("minutes", "given", "side", "epochs"),
    [
        (60.0, {}, 160, 50),
        (10.0, {}, 128, 12),  # at 160 pixels 10 epochs take 12 minutes
        (3.0, {}, 96, 6),
        (3.0, {"data.image_size": 160}, 160, 2),
        (3.0, {"optimization.epochs": 10}, 160, 10),
    ],
)
def test_images_are_smaller_if_few_epochs_fit_into_the_minutes(
    request_for: MakeRequest,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    given: dict[str, Any],
    side: int,
    epochs: int,
) -> None:
    """A step takes 8 s at 160 pixels, the teacher's and the student's, and the fewest epochs are 10.

    Of the limit a tenth is a reserve, and 10 s are not measured.
    """

    def measure(recipe: Recipe, dataset: Dataset, *others: Any) -> RunSeconds:
        assert recipe.data.image_size is not None
        assert dataset.size == (recipe.data.image_size,) * 2
        network = NetworkSeconds(0.0, 8.0 * (recipe.data.image_size / 160) ** 2, 0.0)
        return RunSeconds(4, network, network, 0.0)

    monkeypatch.setattr("kdaug.photos.plan.measure_run", measure)
    monkeypatch.setattr("kdaug.photos.plan.time.monotonic", lambda: 0.0)
    limit = None if "optimization.epochs" in given else minutes
    recipe = plan_recipe(request_for({"data.image_size": "not given", **given}, limit), console)
    assert (recipe.data.image_size, recipe.optimization.epochs) == (side, epochs)
    assert ("measuring again with images of" in console.file.getvalue()) == (side < 160)


@pytest.mark.usefixtures("_measured")
def test_time_that_has_passed_counts(
    request_for: MakeRequest, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdaug.photos.plan.time.monotonic", lambda: 27.0)
    assert plan_recipe(request_for({}, 1.0), console).optimization.epochs == 1
    monkeypatch.setattr("kdaug.photos.plan.time.monotonic", lambda: 50.0)
    with pytest.raises(InputError, match=r"--minutes 1 is too short: .* takes 1\.4 minutes here"):
        plan_recipe(request_for({}, 1.0), console)


@pytest.mark.usefixtures("_measured")
def test_cached_weights_are_fine_tuned(request_for: MakeRequest, tmp_path: Path, console: Console) -> None:
    fill_cache(tmp_path / "cache", "test_resnet.r160_in1k", published_weights("test_resnet"))
    given = {"student.name": "test_resnet", "data.image_size": "not given"}
    recipe = plan_recipe(request_for(given), console)
    assert recipe.student.pretrained
    assert (recipe.data.image_size, recipe.optimization.epochs) == (160, 30)
    out = console.file.getvalue()
    assert "the student starts from timm's pretrained weights of test_resnet\n" in out
    assert "chosen for 33 training images, fine-tuning, CPU" in out
    recipe = plan_recipe(request_for({**given, "student.pretrained": False}), console)
    assert not recipe.student.pretrained


@pytest.mark.usefixtures("_measured")
def test_weights_that_cannot_be_had_are_not_used_and_the_reason_is_said(
    request_for: MakeRequest, tmp_path: Path, console: Console
) -> None:
    recipe = plan_recipe(request_for({"student.name": "test_resnet"}), console)
    assert not recipe.student.pretrained
    (line,) = (line for line in console.file.getvalue().splitlines() if line.startswith("the student starts"))
    assert line.startswith(
        "the student starts from random weights: timm's weights test_resnet.r160_in1k are not in the cache "
        f"{tmp_path}/cache and cannot be downloaded from http://127.0.0.1"
    )


@pytest.mark.usefixtures("_measured")
def test_another_network_of_the_teacher_starts_from_its_weights(
    request_for: MakeRequest, tmp_path: Path, console: Console
) -> None:
    fill_cache(tmp_path / "cache", "test_resnet.r160_in1k", published_weights("test_resnet"))
    recipe = plan_recipe(request_for({"teacher.network": "test_resnet"}), console)
    assert recipe.teacher.weights == "timm:test_resnet"
    assert "the teacher starts from timm's pretrained weights of test_resnet\n" in console.file.getvalue()


@pytest.mark.usefixtures("_measured")
def test_weights_that_do_not_fit_the_arguments_are_not_used(
    request_for: MakeRequest, tmp_path: Path, console: Console
) -> None:
    fill_cache(tmp_path / "cache", "test_vit.r160_in1k", published_weights("test_vit"))
    arguments = {"img_size": 32, "embed_dim": 32, "num_heads": 2}
    given = {"student.name": "test_vit", "student.arguments": arguments, "data.image_size": "not given"}
    recipe = plan_recipe(request_for(given), console)
    assert (recipe.student.pretrained, recipe.data.image_size) == (False, 32)
    assert "the student starts from random weights: network test_vit cannot be created" in console.file.getvalue()


def test_the_values_of_an_existing_run_are_taken(
    request_for: MakeRequest, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        pytest.fail("measured again")

    monkeypatch.setattr("kdaug.photos.plan.measure_run", fail)
    recorded = {**GIVEN, "optimization.epochs": 4}
    request = request_for(None, minutes=5.0)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(with_settings(request.recipe, recorded)))
    recipe = plan_recipe(request, console)
    given = {"data.image_size": 16, "student.name": "wide_resnet10_1"}  # by the request
    assert {name: value(recipe, name) for name in CHOSEN} == {**recorded, **given}
    assert console.file.getvalue() == ""


def test_images_in_memory_keep_the_recipe(request_for: MakeRequest, console: Console) -> None:
    request = request_for({"data.name": "bundled", "views.crop": "pad"})
    assert plan_recipe(request, console) == request.recipe


def test_stored_labels_keep_their_image_size_and_epochs(request_for: MakeRequest, console: Console) -> None:
    recipe = plan_recipe(request_for({"teacher.labels": "labels", "data.image_size": "not given"}), console)
    assert (recipe.data.image_size, recipe.optimization.epochs, recipe.teacher.epochs) == (None, 50, None)
    assert (recipe.optimization.optimizer, recipe.optimization.global_batch) == ("adamw", 8)


@pytest.mark.parametrize("settings", [{"teacher.labels": "labels"}, {"data.name": "bundled", "views.crop": "pad"}])
def test_minutes_need_epochs_that_can_be_chosen(
    request_for: MakeRequest, console: Console, settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="--minutes chooses the number of epochs for image files"):
        plan_recipe(request_for(settings, minutes=3.0), console)


@pytest.mark.usefixtures("_measured")
def test_a_teacher_that_exists_takes_no_time(request_for: MakeRequest, console: Console) -> None:
    given = {"optimization.epochs": 1, "teacher.epochs": 1, "run.evaluate_every": 1}
    train(plan_recipe(request_for(given), console), console)
    again = request_for(given)
    again = replace(again, recipe=with_settings(again.recipe, {"run.dir": f"{again.recipe.run.dir}-2"}))
    console.file.truncate(0)
    plan_recipe(again, console)
    assert "minutes (student " in console.file.getvalue()


def test_impossible_settings_are_found_before_anything_is_measured(request_for: MakeRequest, console: Console) -> None:
    with pytest.raises(InputError, match="there is no network 'wide_resnet10_x'"):
        plan_recipe(request_for({"student.name": "wide_resnet10_x"}), console)
    with pytest.raises(InputError, match=r"warmup_epochs is 20.0, but must be below optimization.epochs, which is 4"):
        plan_recipe(request_for({"optimization.warmup_epochs": 20.0, "optimization.epochs": 4}), console)


def test_all_ranks_choose_the_same(shapes: Path, tmp_path: Path) -> None:
    """Each has measured other times; the batch is for both."""
    settings = {**SMALL_PHOTOS, "data.root": str(shapes), "run.dir": str(tmp_path / "run"), "teacher.source": "none"}
    assert start_ranks(2, plan_rank, settings, 10.0, tmp_path).wait() == [0, 0]
    texts = [(tmp_path / f"{rank}.yaml").read_text() for rank in range(2)]
    assert texts[0] == texts[1]
    assert from_yaml(texts[0]).optimization.global_batch == 8
