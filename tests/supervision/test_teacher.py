"""The teacher: frozen, with its own normalization and resolution, from every source."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from kdaug import config
from kdaug.data import ArrayImages, Dataset, load_dataset
from kdaug.errors import InputError
from kdaug.networks import InputFormat, NetworkInfo, create_network, save_weights
from kdaug.supervision import Teacher, distillation_loss, load_teacher, soft_labels_from_logits
from kdaug.supervision import teacher as teacher_module

NAME = "wide_resnet10_1"
CLASSES = ("cat", "dog", "owl")
CARD = NetworkInfo(NAME, CLASSES, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (12, 10))
VIEWS = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8))


def dataset(classes: tuple[str, ...] = CLASSES, channels: int = 3) -> Dataset:
    empty = ArrayImages(np.empty((0, 16, 16, channels), np.uint8), np.empty(0, np.int64))
    return Dataset("none", classes, empty, empty, (16, 16), (0.7,) * channels, (0.8,) * channels, "")


@pytest.fixture
def network() -> nn.Module:
    """After one forward pass in training mode, so that batch norm differs in evaluation mode."""
    torch.manual_seed(0)
    network = create_network(NAME, len(CLASSES), 3)
    network(torch.randn(8, 3, 8, 8) * 3 + 1)
    return network


def load(source: str, data: Dataset | None = None, **settings: object) -> Teacher:
    recipe = config.check(config.Recipe(teacher=config.Teacher(**settings)))
    assumed = config.teacher_network(replace(recipe, student=config.Network(NAME)))
    return load_teacher(recipe.teacher, source, data or dataset(), assumed)


def expected_logits(
    network: nn.Module,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: tuple[int, int] | None,
    views: Tensor = VIEWS,
) -> Tensor:
    """Logits of `network` in evaluation mode for views normalized and resized by hand, in float64."""
    images = (views.double() / 255 - torch.tensor(mean)) / torch.tensor(std)
    images = images.permute(0, 3, 1, 2)
    if size is not None:
        images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        return copy.deepcopy(network).double().eval()(images)


def assert_predicts(teacher: Teacher, expected: Tensor) -> None:
    torch.testing.assert_close(teacher(VIEWS).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [None, (16, 16), (24, 20), (7, 9)])
def test_views_get_the_teachers_normalization_and_size(size: tuple[int, int] | None, network: nn.Module) -> None:
    expected = expected_logits(network, CARD.mean, CARD.std, size)
    assert_predicts(Teacher(network, InputFormat(CARD.mean, CARD.std, size)), expected)


def test_teacher_stays_in_eval_mode_and_frozen(network: nn.Module) -> None:
    teacher = Teacher(network.train(), CARD.input_format)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    assert teacher.train() is teacher
    nn.Sequential(teacher).train()
    assert not any(module.training for module in teacher.modules())
    first = teacher(VIEWS)
    assert torch.equal(teacher(VIEWS), first)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_logits_can_be_used_in_a_backward_pass(network: nn.Module) -> None:
    student = copy.deepcopy(network)
    teacher = Teacher(network, CARD.input_format)
    teacher_logits = teacher(VIEWS)
    assert not teacher_logits.requires_grad
    assert not teacher_logits.is_inference()
    logits = student(VIEWS.float().permute(0, 3, 1, 2) / 255)
    settings, labels = config.Supervision(k=2), torch.tensor([0, 1, 2, 0])
    soft_labels = soft_labels_from_logits(teacher_logits, settings, labels)
    distillation_loss(settings, logits, soft_labels, labels).mean.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("source", ["run:{}", "file:{}/last.safetensors"])
def test_run_and_its_weight_file_use_their_own_input(source: str, network: nn.Module, tmp_path: Path) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "last.safetensors")
    expected = expected_logits(network, CARD.mean, CARD.std, CARD.size)
    assert_predicts(load(source.format(tmp_path)), expected)
    larger = expected_logits(network, CARD.mean, CARD.std, (20, 20))
    assert_predicts(load(source.format(tmp_path), image_size=20), larger)


@pytest.mark.parametrize("save", [torch.save, safetensors.torch.save_file])
def test_plain_weight_file_uses_the_settings(
    save: Callable[[dict[str, Tensor], Path], None], network: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "teacher.bin"
    save(network.state_dict(), path)
    assert_predicts(load(f"file:{path}"), expected_logits(network, (0.7,) * 3, (0.8,) * 3, None))
    custom = load(f"file:{path}", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1), image_size=24)
    assert_predicts(custom, expected_logits(network, (0.5, 0.4, 0.3), (0.2, 0.3, 0.1), (24, 24)))


def test_plain_weight_file_needs_the_right_network(tmp_path: Path) -> None:
    torch.save(create_network("wide_resnet10_2", 3, 3).state_dict(), tmp_path / "w.pth")
    named = load(f"file:{tmp_path / 'w.pth'}", network="wide_resnet10_2")
    assert named.network.num_features == 128
    with pytest.raises(InputError, match=r"w\.pth"):
        load(f"file:{tmp_path / 'w.pth'}")


THOUSAND = tuple(f"class {i}" for i in range(1000))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Replaces timm's published weights by random ones. Returns the arguments of each call that creates a network."""
    calls = []

    def create(name: str, classes: int, channels: int, pretrained: bool = False, arguments: object = {}) -> nn.Module:
        calls.append((name, classes, channels, pretrained))
        return create_network(name, classes, channels, arguments=arguments)

    monkeypatch.setattr(teacher_module, "create_network", create)
    return calls


def test_timm_weights_use_their_published_input(offline: list[tuple[object, ...]]) -> None:
    teacher = load("timm:resnet10t", dataset(THOUSAND))
    assert offline == [("resnet10t", 1000, 3, True)]
    published = timm.get_pretrained_cfg("resnet10t")
    assert teacher.input_format == InputFormat(published.mean, published.std, published.input_size[1:])
    assert published.mean == (0.485, 0.456, 0.406)
    assert load("timm:resnet10t", dataset(THOUSAND), image_size=64).input_format.size == (64, 64)


@pytest.mark.parametrize(
    ("source", "classes", "channels", "message"),
    [
        ("timm:resnet5O", THOUSAND, 3, "no network 'resnet5O' in timm; did you mean resnet50"),
        ("timm:wide_resnet16_1", THOUSAND, 3, "timm has no published weights for wide_resnet16_1"),
        (
            "timm:resnet50",
            CLASSES,
            3,
            "timm's resnet50 has 1000 classes, but the data have 3; train a teacher .*teacher.source to train",
        ),
        ("timm:resnet50", THOUSAND, 1, r"the teacher takes 3 channel\(s\), but the data have 1"),
    ],
)
def test_unsuitable_timm_network_is_not_downloaded(
    source: str, classes: tuple[str, ...], channels: int, message: str, offline: list[tuple[object, ...]]
) -> None:
    with pytest.raises(InputError, match=message):
        load(source, dataset(classes, channels))
    assert offline == []


@pytest.mark.parametrize("source", ["run:{}", "file:{}/last.safetensors"])
@pytest.mark.parametrize("classes", [("owl", "cat"), ("dog", "owl", "cat")])
def test_classes_of_a_run_are_matched_by_name(
    source: str, classes: tuple[str, ...], network: nn.Module, tmp_path: Path
) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "last.safetensors")
    all_classes = expected_logits(network, CARD.mean, CARD.std, CARD.size)
    expected = torch.stack([all_classes[:, CLASSES.index(name)] for name in classes], 1)
    assert_predicts(load(source.format(tmp_path), dataset(classes)), expected)


# Index among ImageNet's 1,000 classes of three Imagenette classes: cassette player, tench, English springer.
IMAGENET_INDICES = {"n02979186": 482, "n01440764": 0, "n02102040": 217}


def test_classes_of_an_imagenet_file_are_matched_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    thousand = create_network(NAME, 1000, 3)
    torch.save(thousand.state_dict(), tmp_path / "w.pth")
    expected = expected_logits(thousand, (0.7,) * 3, (0.8,) * 3, None)[:, list(IMAGENET_INDICES.values())]
    assert_predicts(load(f"file:{tmp_path / 'w.pth'}", dataset(tuple(IMAGENET_INDICES))), expected)
    with pytest.raises(InputError, match="is for 1000 classes, but the data have 3"):
        load(f"file:{tmp_path / 'w.pth'}", dataset(CLASSES))


def test_classes_of_a_timm_network_are_matched_by_name(offline: list[tuple[object, ...]]) -> None:
    torch.manual_seed(0)
    teacher = load("timm:resnet10t", dataset(tuple(IMAGENET_INDICES)), image_size=32)
    assert offline == [("resnet10t", 1000, 3, True)]
    whole = Teacher(teacher.network, teacher.input_format)
    assert torch.equal(teacher(VIEWS), whole(VIEWS)[:, list(IMAGENET_INDICES.values())])


@pytest.mark.parametrize("source", ["run:{}", "file:{}/last.safetensors"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(("a", "b")), r"last\.safetensors has 3 classes, but the data have 2"),
        (dataset(("dog", "cat", "ant")), r"last\.safetensors has other classes than the data"),
        (dataset(channels=1), r"the teacher takes 3 channel\(s\), but the data have 1"),
    ],
)
def test_run_on_other_data_is_refused(
    source: str, data: Dataset, message: str, network: nn.Module, tmp_path: Path
) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "last.safetensors")
    with pytest.raises(InputError, match=message):
        load(source.format(tmp_path), data)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (dataset(tuple("abcde")), {}, "is for 3 classes, but the data have 5"),
        (dataset(channels=1), {}, r"stem\.weight is \[16, 3, 3, 3\], but the network has \[16, 1, 3, 3\]"),
        (dataset(), {"mean": (0.5,), "std": (0.5,)}, r"the teacher takes 1 channel\(s\), but the data have 3"),
        (dataset(), {"mean": (0.5,) * 3, "std": (0.5,)}, r"teacher\.std"),
        (dataset(), {"mean": (0.5,) * 3, "std": (0.5,) * 2}, r"teacher\.std"),
        (dataset(), {"mean": (0.5,) * 3, "std": (0.5, 0.0, 0.5)}, r"teacher\.std"),
    ],
)
def test_unsuitable_plain_weight_file_is_refused(
    data: Dataset, settings: dict[str, object], message: str, network: nn.Module, tmp_path: Path
) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        load(f"file:{tmp_path / 'w.pth'}", data, **settings)


def test_unfinished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} is not a finished run: it has no last.safetensors"):
        load(f"run:{tmp_path}")


def test_folder_as_file_and_file_as_run_are_refused(network: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "last.safetensors"
    save_weights(network.state_dict(), CARD, file)
    with pytest.raises(
        InputError, match=f"{tmp_path} is a folder, not a weight file; set teacher.source to run:{tmp_path}$"
    ):
        load(f"file:{tmp_path}")
    with pytest.raises(InputError, match=f"{file} is a file, not a run; set teacher.source to file:{file}$"):
        load(f"run:{file}")


@pytest.mark.parametrize(("setting", "other"), [("network", "resnet18"), ("mean", (0.5,) * 3), ("std", (0.5,) * 3)])
def test_kdaug_weight_file_refuses_other_settings(
    setting: str, other: object, network: nn.Module, tmp_path: Path
) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "w.safetensors")
    own = {"network": CARD.network, "mean": CARD.mean, "std": CARD.std}
    same = load(f"file:{tmp_path / 'w.safetensors'}", **own)
    assert same.input_format == CARD.input_format
    with pytest.raises(
        InputError, match=rf"teacher\.{setting} is set, but .*w\.safetensors has its own: .*; leave it out"
    ):
        load(f"file:{tmp_path / 'w.safetensors'}", **{**own, setting: other})


SETTINGS = {
    "network": "resnet18", "policy": "randaugment-n1-m1@tf-efficientnet", "cutout": 16, "epochs": 3,
    "learning_rate": 0.2, "weight_decay": 0.0,
    "mean": (0.5,), "std": (0.5,), "image_size": 64, "seed": 1,
}  # fmt: skip
TRAIN_SETTINGS = ["policy", "cutout", "epochs", "learning_rate", "weight_decay", "seed"]
UNUSED = {
    "none": [],
    "train": ["mean", "std"],
    "file:w.pth": TRAIN_SETTINGS,
    "run:runs/a": ["network", *TRAIN_SETTINGS, "mean", "std"],
    "timm:resnet50": ["network", *TRAIN_SETTINGS, "mean", "std"],
}


@pytest.mark.parametrize("setting", [name for name in SETTINGS if name != "std"])  # std comes with mean
@pytest.mark.parametrize("source", UNUSED)
def test_unused_teacher_setting_is_refused(source: str, setting: str) -> None:
    config.check(config.Recipe(teacher=config.Teacher(source)))
    values = {name: SETTINGS[name] for name in (("mean", "std") if setting == "mean" else (setting,))}
    settings = config.Teacher(source, **values)
    if setting not in UNUSED[source]:
        config.check(config.Recipe(teacher=settings))
        return
    with pytest.raises(InputError) as error:
        config.check(config.Recipe(teacher=settings))
    default = getattr(config.Teacher(), setting)
    assert str(error.value).startswith(
        f"teacher.{setting} is {SETTINGS[setting]}, but has no effect with teacher.source {source}, only with "
    )
    assert str(error.value).endswith(f"leave it at {default}")


def test_source_is_checked_before_other_settings() -> None:
    with pytest.raises(InputError, match=r"teacher\.source is 'fiel:w\.pth', but must be none, train, bundled, run:"):
        config.check(config.Recipe(teacher=config.Teacher("fiel:w.pth", cutout=16)))


@pytest.mark.parametrize("source", ["", "runs/a", "fiel:w.pth", "run:", "file:", "timm:", "Run:x"])
def test_unknown_source_is_refused(source: str) -> None:
    with pytest.raises(InputError, match=f"teacher.source is '{source}', but must be none, train, bundled, run:DIR, "):
        load(source)


def test_the_bundled_teacher_has_the_errors_that_its_description_states() -> None:
    characters = load_dataset(config.Data("omniglot", train_images=1210, measure_unused=True))
    teacher = load_teacher(config.Teacher("bundled"), "bundled", characters)
    text = (resources.files("kdaug.data") / "omniglot" / "TEACHER.md").read_text(encoding="utf-8")
    for name, images in (("images not trained on", characters.val), ("training images", characters.train)):
        assert isinstance(images, ArrayImages)
        parts = np.split(images.images, 10)
        predicted = torch.cat([teacher(torch.from_numpy(part)).argmax(1) for part in parts]).numpy()
        stated = re.search(rf"\| {len(images):,} {name} \| ([\d.]+) % \|", text)
        assert stated is not None
        error = 100 * (predicted != images.labels).mean()
        assert error == pytest.approx(float(stated[1]), abs=0.2)  # it was measured in bfloat16


def test_the_bundled_teacher_refuses_other_classes() -> None:
    with pytest.raises(InputError, match=r"omniglot/teacher\.safetensors has 242 classes, but the data have 10"):
        load_teacher(config.Teacher("bundled"), "bundled", load_dataset(config.Data()))
