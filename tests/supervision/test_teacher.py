"""The teacher: frozen, in its own normalisation and resolution, from every source, refused where it does not fit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from kdaug import config
from kdaug.data import ArrayImages, Dataset
from kdaug.errors import InputError
from kdaug.networks import InputFormat, NetworkCard, create_network, save_weights
from kdaug.supervision import Teacher, distillation_loss, load_teacher, soft_labels_from_logits
from kdaug.supervision import teacher as teacher_module

NAME = "wide_resnet10_1"
CLASSES = ("cat", "dog", "owl")
CARD = NetworkCard(NAME, CLASSES, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (12, 10))
VIEWS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))


def dataset(classes: tuple[str, ...] = CLASSES, channels: int = 3) -> Dataset:
    nothing = ArrayImages(np.empty((0, 16, 16, channels), np.uint8), np.empty(0, np.int64))
    return Dataset("none", classes, nothing, nothing, (16, 16), (0.7,) * channels, (0.8,) * channels, "")


@pytest.fixture
def network() -> nn.Module:
    """Trained a little, so that evaluation mode and training mode differ."""
    torch.manual_seed(0)
    network = create_network(NAME, len(CLASSES), 3)
    network(torch.randn(8, 3, 8, 8) * 3 + 1)
    return network


def load(source: str, data: Dataset | None = None, **settings: object) -> Teacher:
    recipe = config.check(config.Recipe(teacher=config.Teacher(**settings)))
    return load_teacher(recipe.teacher, source, data or dataset(), NAME)


def judged(
    network: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int] | None,
    views: Tensor = VIEWS,
) -> Tensor:
    """Logits of `network` in evaluation mode for views normalised and resized by hand, in float64."""
    images = (views.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    images = images.permute(0, 3, 1, 2)
    if size is not None:
        images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        return copy.deepcopy(network).double().eval()(images)


def assert_judges(teacher: Teacher, expected: Tensor) -> None:
    torch.testing.assert_close(teacher(VIEWS).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [None, (16, 16), (24, 20), (7, 9)])
def test_views_are_seen_in_the_teachers_own_normalisation_and_size(
    size: tuple[int, int] | None, network: nn.Module
) -> None:
    expected = judged(network, CARD.mean, CARD.std, size)
    assert_judges(Teacher(network, InputFormat(CARD.mean, CARD.std, size)), expected)


def test_a_teacher_stays_in_evaluation_mode_and_never_changes(network: nn.Module) -> None:
    teacher = Teacher(network.train(), CARD.input_format)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert teacher.train() is teacher
    nn.Sequential(teacher).train()
    assert not any(module.training for module in teacher.modules())
    first = teacher(VIEWS)
    assert torch.equal(teacher(VIEWS), first)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_its_answers_serve_in_the_students_backward_pass(network: nn.Module) -> None:
    student = copy.deepcopy(network)
    teacher = Teacher(network, CARD.input_format)
    answers = teacher(VIEWS)
    assert not answers.requires_grad
    assert not answers.is_inference()
    logits = student(VIEWS.float().permute(0, 3, 1, 2) / 255)
    distillation_loss(
        config.Supervision(k=2),
        logits,
        soft_labels_from_logits(answers, config.Supervision(k=2)),
        torch.tensor([0, 1, 2, 0]),
    ).total.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("source", ["run:{}", "file:{}/last.safetensors"])
def test_a_run_and_its_file_are_read_with_their_own_input(source: str, network: nn.Module, tmp_path: Path) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "last.safetensors")
    expected = judged(network, CARD.mean, CARD.std, CARD.size)
    assert_judges(load(source.format(tmp_path)), expected)
    larger = judged(network, CARD.mean, CARD.std, (20, 20))
    assert_judges(load(source.format(tmp_path), image_size=20), larger)


@pytest.mark.parametrize("save", [torch.save, safetensors.torch.save_file])
def test_a_bare_file_is_read_as_the_settings_say(
    save: Callable[[dict[str, Tensor], Path], None], network: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.bin"
    save(network.state_dict(), path)
    assert_judges(load(f"file:{path}"), judged(network, (0.7,) * 3, (0.8,) * 3, None))
    theirs = load(f"file:{path}", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1), image_size=24)
    assert_judges(theirs, judged(network, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), (24, 24)))


def test_a_bare_file_is_of_the_network_named_else_of_the_students(tmp_path: Path) -> None:
    torch.save(create_network("wide_resnet10_2", 3, 3).state_dict(), tmp_path / "w.pth")
    named = load(f"file:{tmp_path / 'w.pth'}", network="wide_resnet10_2")
    assert named.network.num_features == 128
    with pytest.raises(InputError, match=r"w\.pth"):
        load(f"file:{tmp_path / 'w.pth'}")


THOUSAND = tuple(f"class {i}" for i in range(1000))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """timm's networks with random in place of published weights, and what was asked for."""
    asked = []

    def create(name: str, classes: int, channels: int, pretrained: bool = False) -> nn.Module:
        asked.append((name, classes, channels, pretrained))
        return create_network(name, classes, channels)

    monkeypatch.setattr(teacher_module, "create_network", create)
    return asked


def test_timms_published_network_is_read_with_its_published_input(offline: list[tuple[object, ...]]) -> None:
    teacher = load("timm:resnet10t", dataset(THOUSAND))
    assert offline == [("resnet10t", 1000, 3, True)]
    published = timm.get_pretrained_cfg("resnet10t")
    assert teacher.input_format == InputFormat(published.mean, published.std, published.input_size[1:])
    assert published.mean == (0.485, 0.456, 0.406)
    assert load("timm:resnet10t", dataset(THOUSAND), image_size=64).input_format.size == (64, 64)


@pytest.mark.parametrize(
    ("source", "classes", "channels", "says"),
    [
        ("timm:resnet5O", THOUSAND, 3, "no network 'resnet5O' in timm; did you mean resnet50"),
        ("timm:wide_resnet16_1", THOUSAND, 3, "timm has no published weights for wide_resnet16_1"),
        ("timm:resnet50", CLASSES, 3, "timm's resnet50 has 1000 classes, but the data have 3.*teacher.source train"),
        ("timm:resnet50", THOUSAND, 1, r"the teacher takes 3 channel\(s\), but the data have 1"),
    ],
)
def test_a_timm_network_that_will_not_do_is_refused_before_anything_is_fetched(
    source: str, classes: tuple[str, ...], channels: int, says: str, offline: list[tuple[object, ...]]
) -> None:
    with pytest.raises(InputError, match=says):
        load(source, dataset(classes, channels))
    assert offline == []


@pytest.mark.parametrize("source", ["run:{}", "file:{}/last.safetensors"])
@pytest.mark.parametrize("classes", [("owl", "cat"), ("dog", "owl", "cat")])
def test_a_run_answers_for_the_datas_classes_by_their_names(
    source: str, classes: tuple[str, ...], network: nn.Module, tmp_path: Path
) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "last.safetensors")
    all_three = judged(network, CARD.mean, CARD.std, CARD.size)
    expected = torch.stack([all_three[:, CLASSES.index(name)] for name in classes], 1)
    assert_judges(load(source.format(tmp_path), dataset(classes)), expected)


# Three of Imagenette's classes and their places among ImageNet's 1,000: cassette player, tench, English springer.
IMAGENET_PLACES = {"n02979186": 482, "n01440764": 0, "n02102040": 217}


def test_a_file_for_imagenet_answers_for_the_datas_classes_of_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    thousand = create_network(NAME, 1000, 3)
    torch.save(thousand.state_dict(), tmp_path / "w.pth")
    expected = judged(thousand, (0.7,) * 3, (0.8,) * 3, None)[:, list(IMAGENET_PLACES.values())]
    assert_judges(load(f"file:{tmp_path / 'w.pth'}", dataset(tuple(IMAGENET_PLACES))), expected)
    with pytest.raises(InputError, match="is for 1000 classes, but the data have 3"):
        load(f"file:{tmp_path / 'w.pth'}", dataset(CLASSES))


def test_timms_network_for_imagenet_answers_for_the_datas_classes_of_it(offline: list[tuple[object, ...]]) -> None:
    torch.manual_seed(0)
    teacher = load("timm:resnet10t", dataset(tuple(IMAGENET_PLACES)), image_size=32)
    assert offline == [("resnet10t", 1000, 3, True)]
    whole = Teacher(teacher.network, teacher.input_format)
    assert torch.equal(teacher(VIEWS), whole(VIEWS)[:, list(IMAGENET_PLACES.values())])


@pytest.mark.parametrize("source", ["run:{}", "file:{}/last.safetensors"])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (dataset(("a", "b")), r"last\.safetensors has 3 classes, but the data have 2"),
        (dataset(("dog", "cat", "ant")), r"last\.safetensors has other classes than the data"),
        (dataset(channels=1), r"the teacher takes 3 channel\(s\), but the data have 1"),
    ],
)
def test_a_run_on_other_data_is_refused(
    source: str, data: Dataset, says: str, network: nn.Module, tmp_path: Path
) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "last.safetensors")
    with pytest.raises(InputError, match=says):
        load(source.format(tmp_path), data)


@pytest.mark.parametrize(
    ("data", "settings", "says"),
    [
        (dataset(tuple("abcde")), {}, "is for 3 classes, but the data have 5"),
        (dataset(channels=1), {}, r"stem\.weight is \[16, 3, 3, 3\], but the network has \[16, 1, 3, 3\]"),
        (dataset(), {"mean": (0.5,), "std": (0.5,)}, r"the teacher takes 1 channel\(s\), but the data have 3"),
        (dataset(), {"mean": (0.5,) * 3, "std": (0.5,)}, r"teacher\.std"),
        (dataset(), {"mean": (0.5,) * 3, "std": (0.5,) * 2}, r"teacher\.std"),
        (dataset(), {"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, r"teacher\.std"),
    ],
)
def test_a_bare_file_that_does_not_fit_is_refused(
    data: Dataset, settings: dict[str, object], says: str, network: nn.Module, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=says):
        load(f"file:{tmp_path / 'w.pth'}", data, **settings)


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} is not a finished run: it holds no last.safetensors"):
        load(f"run:{tmp_path}")


def test_a_folder_given_as_file_and_a_file_given_as_run_are_told_apart(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "last.safetensors"
    save_weights(network.state_dict(), CARD, file)
    with pytest.raises(InputError, match=f"{tmp_path} is a folder; a run directory is given as run:{tmp_path}$"):
        load(f"file:{tmp_path}")
    with pytest.raises(InputError, match=f"{file} is a file; a weight file is given as file:{file}$"):
        load(f"run:{file}")


@pytest.mark.parametrize(("setting", "other"), [("network", "resnet18"), ("mean", (0.5,) * 3), ("std", (0.5,) * 3)])
def test_a_file_that_says_its_own_is_not_told_otherwise(
    setting: str, other: object, network: nn.Module, tmp_path: Path
) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "w.safetensors")
    own = {"network": CARD.network, "mean": CARD.mean, "std": CARD.std}
    same = load(f"file:{tmp_path / 'w.safetensors'}", **own)
    assert same.input_format == CARD.input_format
    with pytest.raises(InputError, match=rf"teacher\.{setting} is not for .*w\.safetensors.* leave it out"):
        load(f"file:{tmp_path / 'w.safetensors'}", **{**own, setting: other})


GIVEN = {
    "network": "resnet18", "policy": "randaugment-n1-m1@tf-efficientnet", "cutout": 16, "epochs": 3,
    "learning_rate": 0.2, "weight_decay": 0.0,
    "mean": (0.5,), "std": (0.5,), "image_size": 64, "seed": 1,
}  # fmt: skip
TRAINED = ["policy", "cutout", "epochs", "learning_rate", "weight_decay", "seed"]
UNUSED = {
    "none": [],
    "train": ["mean", "std"],
    "file:w.pth": TRAINED,
    "run:runs/a": ["network", *TRAINED, "mean", "std"],
    "timm:resnet50": ["network", *TRAINED, "mean", "std"],
}


@pytest.mark.parametrize("setting", [name for name in GIVEN if name != "std"])  # std comes with mean
@pytest.mark.parametrize("source", UNUSED)
def test_a_setting_that_the_source_makes_no_use_of_is_refused(source: str, setting: str) -> None:
    config.check(config.Recipe(teacher=config.Teacher(source)))
    given = {name: GIVEN[name] for name in (("mean", "std") if setting == "mean" else (setting,))}
    settings = config.Teacher(source, **given)
    if setting not in UNUSED[source]:
        config.check(config.Recipe(teacher=settings))
        return
    with pytest.raises(InputError) as error:
        config.check(config.Recipe(teacher=settings))
    default = getattr(config.Teacher(), setting)
    assert str(error.value).startswith(
        f"teacher.{setting} is {GIVEN[setting]}, but teacher.source {source} makes no use"
    )
    assert str(error.value).endswith(f"leave it at {default}")


def test_an_unknown_source_is_refused_before_its_settings() -> None:
    with pytest.raises(InputError, match=r"teacher\.source is 'fiel:w\.pth'; there are"):
        config.check(config.Recipe(teacher=config.Teacher("fiel:w.pth", cutout=16)))


@pytest.mark.parametrize("source", ["", "runs/a", "fiel:w.pth", "run:", "file:", "timm:", "Run:x"])
def test_an_unknown_source_is_refused_with_those_that_there_are(source: str) -> None:
    with pytest.raises(InputError, match=f"teacher.source is '{source}'; (there are|did you mean).*(run:|file:|timm:)"):
        load(source)
