"""Initial weights in training: read once at the start, with their normalization, part of the identity of a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.console import Console
from support.hub import fill_cache, published_weights, refusing_address, use_hub
from support.images import write_noise
from support.recipes import TINY, with_settings
from support.runs import assert_same_run, weight_bytes
from support.steps import before_each_step, train_until
from torch import Tensor, nn

from kdaug import InputError
from kdaug.config import Recipe, derive_teacher_recipe, read_recipe, to_yaml
from kdaug.inference import evaluate_run
from kdaug.networks import NetworkInfo, create_network, load_network, save_weights
from kdaug.runs import RunDirectory, recipe_differences, recipe_fingerprint
from kdaug.supervision import load_teacher
from kdaug.training import train
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve, teacher_run_recipes

MEAN, STD = (0.3, 0.4, 0.5), (0.2, 0.3, 0.25)
NAME = "small_convnet"
PhotosRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("photos"), {"a": 8, "b": 8, "c": 8})


@pytest.fixture
def photos_recipe(photos: Path, tmp_path: Path) -> PhotosRecipe:
    """One epoch of five steps on photos of three classes, with some settings changed."""
    settings = {
        "data.name": "folder", "data.root": str(photos), "data.train_images": None, "data.image_size": 16,
        "data.workers": 0, "views.crop": "random-resized", "student.name": NAME, "optimization.epochs": 1,
        "optimization.global_batch": 4, "run.dir": str(tmp_path / "run"), "run.resume": True,
    }  # fmt: skip
    return lambda changed=None: with_settings(TINY, settings | (changed or {}))


def trained_state(name: str = NAME, classes: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(4)
    network = create_network(name, classes, 3)
    network(torch.rand(8, 3, 16, 16))  # so that the running statistics are not the initial ones
    return network.state_dict()


@pytest.fixture
def plain_file(tmp_path: Path) -> Path:
    torch.save(trained_state(), tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.fixture
def finished_run(tmp_path: Path) -> Path:
    """The weights of a run on five classes, with its own normalization."""
    info = NetworkInfo(NAME, tuple("abcde"), MEAN, STD, (24, 24))
    (tmp_path / "base").mkdir()
    save_weights(trained_state(), info, tmp_path / "base" / "last.safetensors")
    return tmp_path / "base"


def first_forward(recipe: Recipe) -> tuple[dict[str, Tensor], Tensor]:
    """The student's weights before its first step, and the input of that step."""
    seen = []

    def keep(step: int, student: nn.Module, x: Tensor) -> None:
        if step == 1:
            seen.append(({name: value.clone() for name, value in student.state_dict().items()}, x.clone()))

    with before_each_step(keep):
        train(recipe)
    return seen[0]


@pytest.mark.parametrize("kind", ["run", "file"])
def test_a_run_starts_from_another_runs_weights(kind: str, photos_recipe: PhotosRecipe, finished_run: Path) -> None:
    source = f"run:{finished_run}" if kind == "run" else f"file:{finished_run}/last.safetensors"
    recipe = photos_recipe({"student.weights": source})
    state, x = first_forward(recipe)
    base = trained_state()
    assert {name for name in state if not torch.equal(state[name], base[name])} == {"9.weight", "9.bias"}
    assert not state["9.weight"].any(), "the new classifier starts from zero"
    assert not state["9.bias"].any()
    pixels = (x.permute(0, 2, 3, 1) * torch.tensor(STD) + torch.tensor(MEAN)) * 255
    torch.testing.assert_close(pixels, pixels.round().clamp(0, 255), atol=1e-3, rtol=0)
    _, info = load_network(Path(recipe.run.dir) / "last.safetensors")
    assert (info.mean, info.std, info.size, info.classes) == (MEAN, STD, (16, 16), ("a", "b", "c"))


def test_the_log_says_what_was_loaded(photos_recipe: PhotosRecipe, finished_run: Path, console: Console) -> None:
    train(photos_recipe({"student.weights": f"run:{finished_run}"}), console)
    lines = [line for line in console.file.getvalue().splitlines() if "initial weights" in line]
    assert lines == [
        f"initial weights: 12 of 14 tensors from run:{finished_run}; new classifier for 3 classes, which starts from "
        "zero (9.weight, 9.bias); normalization: their own; trained at 24x24 pixels, the images have 16x16 pixels"
    ]


def test_evaluation_and_teacher_use_the_runs_normalization(photos_recipe: PhotosRecipe, finished_run: Path) -> None:
    result = train(photos_recipe({"student.weights": f"run:{finished_run}"}))
    shutil.rmtree(finished_run)
    scores = evaluate_run(result.directory, "last", None, "cpu", None)
    assert (scores.top1_error, scores.top5_error) == (result.top1_error, result.top5_error)
    recipe = resolve(photos_recipe({"teacher.source": f"run:{result.directory}"}))
    dataset = build_context(recipe, Console(quiet=True)).dataset
    assert load_teacher(recipe.teacher, recipe.teacher.source, dataset).input_format.mean == MEAN


@pytest.mark.parametrize("stop_at", [1, 4])
@pytest.mark.parametrize("resumed_by", ["run directory", "same recipe"])
def test_a_resumed_run_needs_no_weights(
    photos_recipe: PhotosRecipe, finished_run: Path, tmp_path: Path, stop_at: int, resumed_by: str
) -> None:
    settings = {"student.weights": f"run:{finished_run}"}
    uninterrupted = train(photos_recipe({**settings, "run.dir": str(tmp_path / "uninterrupted")})).directory
    train_until(photos_recipe(settings), stop_at)
    shutil.rmtree(finished_run)
    recipe = photos_recipe(settings)
    if resumed_by == "run directory":
        written = read_recipe(tmp_path / "run" / "recipe.yaml")
        recipe = replace(written, run=replace(written.run, resume=True))
    assert_same_run(train(recipe).directory, uninterrupted)


def test_a_run_without_a_checkpoint_needs_its_weights(
    photos_recipe: PhotosRecipe, plain_file: Path, tmp_path: Path
) -> None:
    settings = {"student.weights": f"file:{plain_file}"}
    train_until(photos_recipe(settings), 1)
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        shutil.rmtree(checkpoint)
    plain_file.unlink()
    with pytest.raises(InputError, match=r"weight file .*w\.pth does not exist"):
        train(photos_recipe(settings))


def test_a_resumed_run_refuses_other_weights(photos_recipe: PhotosRecipe, plain_file: Path) -> None:
    settings = {"student.weights": f"file:{plain_file}"}
    train_until(photos_recipe(settings), 1)
    torch.save(trained_state(classes=6), plain_file)
    with pytest.raises(InputError, match=r"another recipe \(student\.weights: #\w{10} -> #\w{10}\)"):
        train(photos_recipe(settings))


def test_the_content_of_the_weights_identifies_a_run(
    photos_recipe: PhotosRecipe, plain_file: Path, tmp_path: Path
) -> None:
    def resolved(path: Path, **changed: Any) -> Recipe:
        return resolve(photos_recipe({"student.weights": f"file:{path}", **changed}))

    copy, other = tmp_path / "copy.pth", tmp_path / "other.pth"
    shutil.copy(plain_file, copy)
    torch.save(trained_state(classes=6), other)
    fingerprints = [recipe_fingerprint(resolved(path)) for path in (plain_file, copy, other)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert recipe_fingerprint(resolve(photos_recipe())) not in fingerprints
    assert recipe_differences(resolved(plain_file), resolved(copy)) == []
    assert str(plain_file) in (resolved(plain_file).student.weights or "")


def test_weights_of_a_run_are_known_from_its_recipe(
    photos_recipe: PhotosRecipe, plain_file: Path, finished_run: Path, tmp_path: Path
) -> None:
    """Also when a sweep plans its runs again, without run.resume."""
    settings = {"student.weights": f"run:{finished_run}", "teacher.source": "train", "run.resume": False,
                "teacher.weights": f"file:{plain_file}"}  # fmt: skip
    recipe = photos_recipe(settings)
    before = resolve(recipe)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(before))
    plain_file.unlink()
    shutil.rmtree(finished_run)
    assert resolve(recipe) == before
    assert before.student.mean == MEAN
    elsewhere = with_settings(recipe, {"run.dir": str(tmp_path / "other")})
    with pytest.raises(InputError, match=r"folder .*base does not exist"):
        resolve(elsewhere)
    elsewhere = with_settings(elsewhere, {"student.weights": None})
    with pytest.raises(InputError, match=r"w\.pth does not exist"):
        resolve(elsewhere)
    assert resolve(with_settings(elsewhere, {"teacher.labels": "x"})).teacher.weights == f"file:{plain_file}"


def test_old_fingerprints_stay(photos_recipe: PhotosRecipe) -> None:
    """Those of recipes without weights, also pretrained ones, as kdaug computed them before there were weights."""
    recipe = with_settings(photos_recipe(), {"data.root": "photos"})
    assert recipe_fingerprint(recipe) == "c5efe54474"
    assert recipe_fingerprint(with_settings(recipe, {"student.pretrained": True})) == "7b176698f8"


def test_the_weights_are_checked_before_anything_is_written(
    photos_recipe: PhotosRecipe, plain_file: Path, tmp_path: Path
) -> None:
    for settings in (
        {"student.weights": f"file:{plain_file}", "student.name": "wide_resnet10_1"},
        {"teacher.source": "train", "teacher.weights": f"file:{plain_file}", "teacher.network": "wide_resnet10_1"},
    ):
        with pytest.raises(
            InputError, match=r"^initial weights for wide_resnet10_1: weight file .*w\.pth lacks norm\.bias"
        ):
            train(photos_recipe(settings))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "weights", "name"),
    [
        ({}, "student", NAME),
        ({"teacher.arguments": {"a": 1}}, "student", NAME),
        ({"teacher.network": NAME}, None, NAME),
        ({"teacher.weights": "timm:test_vit"}, "timm:test_vit", NAME),
        ({"teacher.network": "test_vit", "teacher.weights": "timm:test_vit"}, "timm:test_vit", "test_vit"),
    ],
)
def test_which_weights_a_trained_teacher_starts_from(
    photos_recipe: PhotosRecipe, plain_file: Path, settings: dict[str, Any], weights: str | None, name: str
) -> None:
    own = {"student.weights": f"file:{plain_file}", "student.mean": MEAN, "student.std": STD}
    for student in (own, {"student.pretrained": True}):
        recipe = photos_recipe({**student, "teacher.source": "train", **settings})
        teacher = derive_teacher_recipe(recipe).student
        expected = recipe.student.initial_weights if weights == "student" else weights
        assert (teacher.initial_weights, teacher.name) == (expected, name)
        assert teacher.mean == (MEAN if weights == "student" and student is own else None)


def test_a_teacher_starts_from_its_own_weights(
    photos_recipe: PhotosRecipe, plain_file: Path, finished_run: Path, console: Console
) -> None:
    mean_std = {"teacher.mean": STD, "teacher.std": MEAN}
    settings = {"teacher.source": "train", "teacher.weights": f"file:{plain_file}", **mean_std}
    recipe = photos_recipe({**settings, "student.weights": f"run:{finished_run}"})
    run = train(recipe, console).directory
    log = console.file.getvalue()
    assert (
        f"initial weights: 12 of 14 tensors from file:{plain_file}; new classifier for 3 classes, which starts from "
        "zero (9.weight, 9.bias); normalization: "
    ) in log
    assert f"initial weights: 12 of 14 tensors from run:{finished_run}; " in log
    (teacher,) = (run.parent / "teachers").iterdir()
    assert load_network(teacher / "last.safetensors")[1].mean == STD
    assert load_network(run / "last.safetensors")[1].mean == MEAN
    assert (read_recipe(run / "recipe.yaml").teacher.weights or "").startswith(f"file:{plain_file}#")
    # The finished teacher is used again, although its weights are gone; with other weights it is another teacher.
    before = weight_bytes(teacher)
    pinned = read_recipe(run / "recipe.yaml")
    plain_file.unlink()
    train(replace(pinned, run=replace(pinned.run, dir=str(run.with_name("again")))))
    assert [path.name for path in (run.parent / "teachers").iterdir()] == [teacher.name]
    assert weight_bytes(teacher) == before
    torch.save(trained_state(classes=4), plain_file)
    (other,) = teacher_run_recipes(resolve(photos_recipe(settings)))
    assert other.run.dir != teacher_run_recipes(resolve(pinned))[0].run.dir


def test_a_finished_teacher_without_checkpoints_needs_no_weights(tmp_path: Path, tiny_run: Path) -> None:
    assert not RunDirectory(tmp_path).has_begun
    copy = shutil.copytree(tiny_run, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").mkdir()
    assert RunDirectory(copy).has_begun
    (copy / "last.safetensors").unlink()
    assert not RunDirectory(copy).has_begun


def test_timms_weights_are_read_once_more_from_the_cache_only(
    photos_recipe: PhotosRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    """A start without network, and a resume without the cache."""
    fill_cache(tmp_path / "cache", "test_resnet.r160_in1k", published_weights("test_resnet"))
    use_hub(monkeypatch, tmp_path / "cache", refusing_address())
    settings = {"student.name": "test_resnet", "student.pretrained": True, "optimization.epochs": 2}
    recipe = photos_recipe({**settings, "run.checkpoint_steps": 1})
    monkeypatch.setattr("support.steps.STUDENTS", (type(create_network("test_resnet", 3, 3)),))
    train_until(recipe, 2, console)
    assert (
        "initial weights: 90 of 92 tensors from timm:test_resnet; new classifier for 3 classes"
        in console.file.getvalue()
    )
    shutil.rmtree(tmp_path / "cache")
    run = train(recipe, console).directory
    assert console.file.getvalue().count("initial weights") == 1
    assert load_network(run / "last.safetensors")[1].mean == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match=r"are not in the cache .* cannot be downloaded from http://127"):
        train(with_settings(recipe, {"run.dir": str(tmp_path / "other")}))
    assert not (tmp_path / "other").exists()


def test_a_run_with_an_average_starts_from_the_weights(photos_recipe: PhotosRecipe, finished_run: Path) -> None:
    settings = {"student.weights": f"run:{finished_run}", "optimization.ema_decay": 0.999}
    run = train(photos_recipe({**settings, "optimization.learning_rate": 1e-9})).directory
    saved, base = safetensors.torch.load_file(run / "last.safetensors"), trained_state()
    torch.testing.assert_close(saved["0.weight"], base["0.weight"], rtol=1e-4, atol=1e-5)
