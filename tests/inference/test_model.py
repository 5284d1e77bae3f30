"""Classifiers: their predictions are those of evaluation, bit for bit, for images in any form."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support.networks import SmallConvNet
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

import kdaug
from kdaug import Classifier, InputError
from kdaug.data import ArrayImages, EncodedImages
from kdaug.inference import Evaluation, evaluation_of_run, preprocessing, reading


@contextmanager
def recorded_inputs() -> Iterator[list[Tensor]]:
    """The inputs of all forward passes of a SmallConvNet."""
    inputs = list[Tensor]()

    def record(module: nn.Module, arguments: tuple[Tensor]) -> None:
        if isinstance(module, SmallConvNet):
            inputs.append(arguments[0])

    handle = register_module_forward_pre_hook(record)
    yield inputs
    handle.remove()


def files_of(evaluation: Evaluation) -> list[Path]:
    assert isinstance(evaluation.images, EncodedImages)
    return list(evaluation.images.files)


def assert_predicts(model: Classifier, images: object, evaluation: Evaluation) -> None:
    """Fails unless the most probable classes and their probabilities are those of the evaluation, to the last bit."""
    first = [top[0] for top in model.predict(images)]
    expected = evaluation.predictions
    assert first == [
        (evaluation.classes[index], probability)
        for index, probability in zip(expected.predicted.tolist(), expected.confidence.tolist(), strict=True)
    ]


@pytest.fixture(scope="module")
def model(photos_run: Path) -> Classifier:
    return kdaug.load(photos_run, device="cpu")


@pytest.fixture(scope="module")
def gray_model(run_with_teacher: Path) -> Classifier:
    return kdaug.load(run_with_teacher, device="cpu")


@pytest.mark.parametrize("name", ["photos_run", "large_photos_run"])
def test_predictions_on_files_are_those_of_the_evaluation(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    with recorded_inputs() as inputs:
        evaluation = evaluation_of_run(run, "last", None, "cpu", None)
    model = kdaug.load(run, device="cpu")
    assert_predicts(model, files_of(evaluation), evaluation)
    singly = torch.stack([model.preprocess(file) for file in files_of(evaluation)])
    assert torch.equal(singly, torch.cat(inputs)[-len(singly) :])  # before them, a trial with another size
    assert singly.dtype == torch.float32


def test_predictions_on_arrays_are_those_of_the_evaluation(run_with_teacher: Path, gray_model: Classifier) -> None:
    with recorded_inputs() as inputs:
        evaluation = evaluation_of_run(run_with_teacher, "last", None, "cpu", None)
    assert isinstance(evaluation.images, ArrayImages)
    pixels = evaluation.images.images
    assert pixels.shape == (2000, 28, 28, 1)
    assert_predicts(gray_model, pixels, evaluation)
    assert_predicts(gray_model, list(pixels), evaluation)
    singly = torch.stack([gray_model.preprocess(image) for image in pixels[:256]])
    assert torch.equal(singly, inputs[0])


def test_gray_images_in_files_are_predicted_as_in_memory(
    run_with_teacher: Path, gray_model: Classifier, tmp_path: Path
) -> None:
    evaluation = evaluation_of_run(run_with_teacher, "last", None, "cpu", None)
    files = [tmp_path / f"{number}.png" for number in range(len(evaluation.images))]
    for file, pixels in zip(files, evaluation.images.images, strict=True):
        Image.fromarray(pixels[..., 0]).save(file)
    assert_predicts(gray_model, files, evaluation)


def test_an_image_is_predicted_in_the_same_way_in_any_form(model: Classifier, mixed_photos: Path) -> None:
    """Path, text, PIL image (opened, or loaded and upright) and array; a PNG is not decoded at a reduced size."""
    for path in sorted((mixed_photos / "val").rglob("*.png")):
        opened = Image.open(path)
        upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
        inputs = [model.preprocess(form) for form in (path, str(path), opened, upright, np.asarray(upright))]
        assert all(torch.equal(each, inputs[0]) for each in inputs)


@pytest.mark.parametrize("size", [(64, 48), (20, 90), (16, 16), (7, 5)])
def test_preprocessing_crops_resizes_and_normalizes(model: Classifier, size: tuple[int, int]) -> None:
    """Against Pillow and NumPy: the central 0.875 of the shorter side, as timm and torchvision, to 16 pixels."""
    image = Image.effect_noise(size, 80).convert("RGB")
    side, (width, height) = 0.875 * min(size), size
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    pixels = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC, box)) / 255
    expected = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(model.preprocess(image), expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("size", [(28, 28), (90, 60), (60, 90)])
def test_a_run_on_images_of_one_size_uses_the_whole_central_square(
    gray_model: Classifier, size: tuple[int, int]
) -> None:
    image = Image.effect_noise(size, 80)
    side, (width, height) = min(size), size
    box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    pixels = np.asarray(image.resize((28, 28), Image.Resampling.BICUBIC, box)) / 255
    mean, std = gray_model.preprocessing.input_format.mean[0], gray_model.preprocessing.input_format.std[0]
    np.testing.assert_allclose(gray_model.preprocess(image)[0], (pixels - mean) / std, atol=1e-5)


def test_a_gray_network_gets_the_luminance_of_a_color_image(gray_model: Classifier) -> None:
    color = Image.effect_noise((28, 28), 80).convert("RGB")
    color.paste((200, 30, 90), (5, 5, 15, 20))
    luminance = np.asarray(color).astype(float) @ [0.299, 0.587, 0.114]
    mean, std = gray_model.preprocessing.input_format.mean[0], gray_model.preprocessing.input_format.std[0]
    np.testing.assert_allclose(gray_model.preprocess(color)[0], (luminance / 255 - mean) / std, atol=0.006 / std)


def test_a_color_network_gets_a_gray_image_in_three_channels(model: Classifier) -> None:
    gray = Image.effect_noise((16, 16), 80)
    assert torch.equal(model.preprocess(np.asarray(gray)[..., None]), model.preprocess(gray.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_by_their_exif_orientation(model: Classifier, tmp_path: Path, orientation: int) -> None:
    image = Image.effect_noise((40, 24), 80).convert("RGB")
    exif = image.getexif()
    exif[0x112] = orientation
    image.save(tmp_path / "image.png", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "image.png"))
    assert torch.equal(model.preprocess(tmp_path / "image.png"), model.preprocess(np.asarray(upright)))


def test_probabilities_are_the_softmax_of_the_logits(gray_model: Classifier) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), dtype=np.uint8)
    inputs = torch.stack([gray_model.preprocess(image) for image in pixels])
    with torch.no_grad():
        logits = gray_model.network(inputs).double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for row, top in zip(probabilities, gray_model.predict(pixels, top=3), strict=True):
        order = np.argsort(-row)[:3]
        assert [name for name, _ in top] == [gray_model.classes[index] for index in order]
        np.testing.assert_allclose([probability for _, probability in top], row[order], rtol=1e-6)
    assert [name for name, _ in gray_model.predict(pixels[:1], top=99)[0]] == [
        gray_model.classes[index] for index in np.argsort(-probabilities[0])
    ]
    assert sum(probability for _, probability in gray_model.predict(pixels[:1], top=99)[0]) == pytest.approx(1)


def test_one_image_gives_a_list_of_one(model: Classifier, mixed_photos: Path) -> None:
    path = mixed_photos / "val" / "a" / "01.png"
    several = model.predict([path, path], top=1)
    assert len(several) == 2
    for image in (path, str(path), Image.open(path), np.asarray(ImageOps.exif_transpose(Image.open(path)))):
        assert model.predict(image, top=1) == several[:1]


def test_one_object_may_be_given_several_times(model: Classifier, tmp_path: Path) -> None:
    """Although Pillow decodes it when it is first used, and cannot do so in two threads."""
    path = tmp_path / "large.png"
    Image.effect_noise((900, 700), 80).convert("RGB").save(path)
    opened = Image.open(path)
    assert model.predict([opened] * 20) == model.predict([path] * 20)


def test_images_may_come_from_a_generator_or_be_none(model: Classifier, mixed_photos: Path) -> None:
    paths = sorted((mixed_photos / "val").rglob("*.*"))
    assert model.predict(path for path in paths) == model.predict(paths)
    assert model.predict([]) == []


@pytest.mark.parametrize(("batch", "sizes"), [(None, [8, 8, 4]), (3, [3] * 6 + [2]), (100, [20])])
def test_images_pass_through_the_network_in_batches(
    large_photos_run: Path, mixed_photos: Path, batch: int | None, sizes: list[int]
) -> None:
    """By default of run.device_batch, as in evaluation."""
    model = kdaug.load(large_photos_run, device="cpu")
    paths = sorted((mixed_photos / "val").rglob("*.*"))
    with recorded_inputs() as inputs:
        predictions = model.predict(paths, batch=batch)
    assert [len(each) for each in inputs] == sizes
    singly = [model.predict(path)[0] for path in paths]
    assert [top[0][0] for top in predictions] == [top[0][0] for top in singly]


def test_predicting_uses_the_evaluation_mode(model: Classifier, mixed_photos: Path) -> None:
    path = mixed_photos / "val" / "a" / "01.png"
    before = model.predict(path)
    model.network.train()
    statistics = {name: value.clone() for name, value in model.network.state_dict().items()}
    assert model.predict(path) == before
    assert all(torch.equal(value, statistics[name]) for name, value in model.network.state_dict().items())


def test_filters_of_warnings_are_left_as_they_were(model: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although threads that decode change them: here the second one begins before the first one has ended."""
    first_began, second_began, first_ended = (threading.Event() for _ in range(3))

    def decode(path: Path, *_: object, **__: object) -> np.ndarray:
        if path.name == "second":
            first_began.wait(20)
        with warnings.catch_warnings(action="ignore"):
            (first_began if path.name == "first" else second_began).set()
            (second_began if path.name == "first" else first_ended).wait(20)
        first_ended.set()
        return np.zeros((16, 16, 3), np.uint8)

    monkeypatch.setattr(preprocessing, "decode", decode)
    monkeypatch.setattr(reading, "available_cores", lambda: 2)
    before = list(warnings.filters)
    model.predict(["first", "second"])
    assert warnings.filters == before


class Output(nn.Module):
    """A network that returns `logits` for every image, or raises it."""

    def __init__(self, logits: list[float] | Exception) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.logits, Exception):
            raise self.logits
        return torch.tensor(self.logits).expand(len(x), -1)


def test_equal_logits_have_the_same_order_for_any_top(model: Classifier) -> None:
    model, image = replace(model, network=Output([1.0, 2.0, 2.0])), np.zeros((16, 16, 3), np.uint8)
    whole = model.predict(image)[0]
    assert [model.predict(image, top=top)[0] for top in (1, 2, 3)] == [whole[:1], whole[:2], whole]


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        ([0.0, float("nan"), 1.0], "the network computes logits that are not finite; check its weights"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            r"the main memory is too small for predicting with 2 images at once \(2.00 GiB more\); use a smaller batch",
        ),
    ],
)
def test_a_failing_network_is_one_line(model: Classifier, output: list[float] | Exception, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        replace(model, network=Output(output)).predict(np.zeros((2, 16, 16, 3), np.uint8))


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (3, "an image is of type int; pass paths, PIL images"),
        ([None], "an image is of type NoneType"),
        (np.zeros((16, 16), np.uint8), r"an image is an array uint8 \[16, 16\]"),
        (
            np.zeros((16, 16, 4), np.uint8),
            r"an image is an array uint8 \[16, 16, 4\]; pass .* uint8 \[H,W,C\] with C 1",
        ),
        (np.zeros((0, 16, 3), np.uint8), r"an image is an array uint8 \[0, 16, 3\]"),
        ([np.zeros((16, 16, 3))], "an image is an array float64"),
        ("missing.jpg", r"image missing\.jpg cannot be read \(No such file or directory\)"),
        (Path("."), r"image \. cannot be read \(Is a directory\)"),
    ],
)
def test_what_is_not_an_image_is_one_line(model: Classifier, images: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        model.predict(images)
    if not isinstance(images, list | int):
        with pytest.raises(InputError, match=problem):
            model.preprocess(images)


def test_a_damaged_image_is_one_line(model: Classifier, mixed_photos: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes((mixed_photos / "val" / "a" / "01.png").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"image .*damaged\.png cannot be read \("):
        model.predict([mixed_photos / "val" / "a" / "01.png", damaged])
    with pytest.raises(InputError, match=r"an image cannot be read \("):
        model.predict(Image.open(damaged))


@pytest.mark.parametrize("flags", [{"top": 0}, {"batch": 0}, {"top": -1}])
def test_numbers_below_one_are_refused(model: Classifier, flags: dict[str, int]) -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        model.predict(np.zeros((16, 16, 3), np.uint8), **flags)


def test_an_error_ends_the_reading_threads(model: Classifier, mixed_photos: Path) -> None:
    before, paths = set(threading.enumerate()), sorted(mixed_photos.rglob("*.*")) * 3
    with pytest.raises(InputError, match="not finite") as error:
        replace(model, network=Output([float("inf")] * 3)).predict(paths, batch=4)
    assert set(threading.enumerate()) <= before, "also while the traceback keeps all frames"
    assert error.traceback
