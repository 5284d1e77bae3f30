"""kdaug.load: from runs and weight files, and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from support.hostile import Command
from support.recipes import TINY, with_settings

import kdaug
from kdaug import InputError
from kdaug.data.crops import CenterCrop
from kdaug.networks import NetworkInfo, create_network, load_network, save_weights
from kdaug.runs import RunDirectory
from kdaug.training import train

IMAGE = Image.effect_noise((50, 40), 80).convert("RGB")


@pytest.fixture(scope="module")
def resized_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gray images of 28 pixels, evaluated at 36."""
    settings = {
        "student.name": "small_convnet", "run.evaluate_size": 36, "optimization.epochs": 1,
        "run.dir": str(tmp_path_factory.mktemp("runs") / "run"),
    }  # fmt: skip
    return train(with_settings(TINY, settings)).directory


def test_a_run_has_its_final_weights_and_classes(run_with_teacher: Path) -> None:
    model = kdaug.load(run_with_teacher, device="cpu")
    tensors = safetensors.torch.load_file(run_with_teacher / "last.safetensors")
    state = model.network.state_dict()
    assert all(torch.equal(tensors[name], state[name]) for name in tensors)
    assert len(model.classes) == 10
    assert model.classes[0] == "T-shirt/top"
    assert not model.network.training
    assert model.precision == torch.float32
    assert model.device == torch.device("cpu")


@pytest.mark.parametrize("name", ["recipe.yaml", "."])
def test_a_run_is_named_by_its_folder_or_recipe(run_with_teacher: Path, name: str) -> None:
    expected = kdaug.load(run_with_teacher, device="cpu").predict(IMAGE)
    assert kdaug.load(str(run_with_teacher / name), device="cpu").predict(IMAGE) == expected


@pytest.mark.parametrize("run", ["run_with_teacher", "photos_run", "resized_run"])
def test_a_weight_file_predicts_as_its_run(run: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Wherever the file is: it contains the preprocessing."""
    directory = request.getfixturevalue(run)
    expected = kdaug.load(directory, device="cpu")
    copied = kdaug.load(shutil.copy(directory / "last.safetensors", tmp_path / "w.bin"), device="cpu")
    assert copied.preprocessing == expected.preprocessing
    assert torch.equal(copied.preprocess(IMAGE), expected.preprocess(IMAGE))
    assert copied.classes == expected.classes
    assert copied.precision == torch.float32


def test_the_best_weights_are_loaded_by_their_file(run_with_teacher: Path, teacher_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_with_teacher, tmp_path / "run")
    shutil.copy(teacher_run / "last.safetensors", run / "best.safetensors")
    assert kdaug.load(run / "best.safetensors", "cpu").predict(IMAGE) == kdaug.load(teacher_run, "cpu").predict(IMAGE)
    assert kdaug.load(run, "cpu").predict(IMAGE) == kdaug.load(run_with_teacher, "cpu").predict(IMAGE)


def test_a_run_of_an_older_version_has_the_preprocessing_of_its_recipe(resized_run: Path, tmp_path: Path) -> None:
    """Its weight file does not say that its images are used whole, nor at which size."""
    run = shutil.copytree(resized_run, tmp_path / "run")
    network, info = load_network(run / "last.safetensors")
    assert (info.photos, info.evaluate_size) == (False, 36)
    old = NetworkInfo(info.network, info.classes, info.mean, info.std, info.size)
    save_weights(network.state_dict(), old, run / "last.safetensors")
    model = kdaug.load(run, device="cpu")
    assert model.preprocessing == kdaug.load(resized_run, device="cpu").preprocessing
    assert model.preprocessing.crop == CenterCrop(28, 1.0)
    assert model.preprocess(IMAGE).shape == (1, 36, 36)


def test_photos_are_decoded_at_the_size_of_evaluation(large_photos_run: Path, tmp_path: Path) -> None:
    for source in (large_photos_run, shutil.copy(large_photos_run / "last.safetensors", tmp_path / "w")):
        model = kdaug.load(source, device="cpu")
        assert model.preprocessing.crop == CenterCrop(24)
        assert model.preprocess(IMAGE).shape == (3, 24, 24)
    assert kdaug.load(large_photos_run, device="cpu").precision == torch.bfloat16


def test_color_images_of_one_size_are_used_whole(tmp_path: Path) -> None:
    """As of a run on CIFAR: an image of its size is not resized."""
    network = create_network("small_convnet", 2, 3)
    info = NetworkInfo("small_convnet", ("a", "b"), (0.5,) * 3, (0.25,) * 3, (32, 32), photos=False)
    save_weights(network.state_dict(), info, tmp_path / "w")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    expected = (pixels.transpose(2, 0, 1) / 255 - 0.5) / 0.25
    np.testing.assert_allclose(kdaug.load(tmp_path / "w", "cpu").preprocess(pixels), expected, atol=1e-6)


def test_a_run_in_training_names_the_weights_that_can_be_loaded(run_with_teacher: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_with_teacher, tmp_path / "two words")
    RunDirectory(run).last_weights.unlink()
    with pytest.raises(InputError) as error:
        kdaug.load(run)
    assert error.value.problem == f"{run} is not finished: it has no last.safetensors yet"
    assert error.value.hint == (
        f"finish it (kdaug train '{run}' --run.resume), or load the weights with the lowest error so far, "
        f"{run}/best.safetensors"
    )
    assert kdaug.load(run / "best.safetensors", device="cpu").predict(IMAGE)


def _other_tensors(path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)


def _hostile(path: Path) -> None:
    torch.save({"model": Command(f"touch {path}.executed")}, path)


@pytest.mark.parametrize(
    ("write", "problem"),
    [
        (lambda path: None, r"x does not exist; give a run directory, a weight file that kdaug wrote, or a folder"),
        (Path.mkdir, r"x has neither recipe\.yaml nor config\.json; give a run directory"),
        (lambda path: path.write_text("text"), r"x is not a weight file"),
        (_other_tensors, r"weight file .*x does not name its network: it was not written by kdaug"),
        (_hostile, r"x is not a weight file"),
    ],
    ids=["missing", "other folder", "text", "other tensors", "hostile"],
)
def test_other_sources_are_refused(tmp_path: Path, write: Callable[[Path], object], problem: str) -> None:
    write(tmp_path / "x")
    with pytest.raises(InputError, match=problem):
        kdaug.load(tmp_path / "x")
    assert not (tmp_path / "x.executed").exists()


def test_a_run_that_has_not_begun_to_evaluate_is_refused(run_with_teacher: Path, tmp_path: Path) -> None:
    run = shutil.copytree(run_with_teacher, tmp_path / "run")
    for name in ("last", "best"):
        (run / f"{name}.safetensors").unlink()
    with pytest.raises(InputError, match=r"has no last\.safetensors yet; finish the run: kdaug train"):
        kdaug.load(run)


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        ((28, 30), "takes images of 28 x 30 pixels, which are not square"),
        ((3, 3), "cannot take 1 image.s. of 3x3 pixels"),
    ],
)
def test_a_network_that_cannot_take_the_images_is_refused(tmp_path: Path, size: tuple[int, int], problem: str) -> None:
    network = create_network("softmax_regression", 2, 1)
    info = NetworkInfo("softmax_regression", ("a", "b"), (0.5,), (0.5,), size)
    save_weights(network.state_dict(), info, tmp_path / "w")
    with pytest.raises(InputError, match=problem):
        kdaug.load(tmp_path / "w")


def test_a_missing_device_is_refused(run_with_teacher: Path) -> None:
    with pytest.raises(InputError, match=r"run\.device nothing cannot be used"):
        kdaug.load(run_with_teacher, device="nothing")
