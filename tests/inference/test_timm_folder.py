"""Folders in timm's layout, written by timm: the network is timm's own, the preprocessing nearly."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from torch import nn

import kdaug
from kdaug import InputError
from kdaug.data.crops import CenterCrop

NAMES = ("cat", "<b>dög", "two words")


def write_folder(
    folder: Path, name: str = "test_efficientnet.r160_in1k", data: dict[str, Any] | None = None, **options: Any
) -> nn.Module:
    """Writes a network with random weights as timm does for the hub; returns it. data: preprocessing."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3, **options).eval()
    save_for_hf(network, folder, {"label_names": list(NAMES)}, safe_serialization=True, data_config=data)
    return network


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_folder(tmp_path / "network")
    return tmp_path / "network"


def change(folder: Path, **fields: Any) -> None:
    """Changes fields of config.json; None removes one."""
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


@pytest.mark.parametrize(
    ("name", "options", "size"),
    [
        ("test_efficientnet.r160_in1k", {}, 160),
        ("test_efficientnet.r160_in1k", {"in_chans": 1, "drop_path_rate": 0.1}, 160),
        ("test_vit", {"img_size": 64, "patch_size": 8}, 64),
        ("wide_resnet10_1", {}, 32),
    ],
)
def test_the_network_is_the_one_that_timm_opens(tmp_path: Path, name: str, options: dict[str, Any], size: int) -> None:
    gray = {"mean": (0.4,), "std": (0.3,)} if "in_chans" in options else {}
    write_folder(tmp_path / "network", name, gray or None, **options)
    model = kdaug.load(tmp_path / "network", device="cpu")
    opened = timm.create_model(f"local-dir:{tmp_path}/network", pretrained=True).eval()
    opened.to(memory_format=torch.channels_last)
    assert model.classes == NAMES
    inputs = torch.randn(2, model.preprocessing.channels, size, size)
    with torch.no_grad():
        assert torch.equal(model.network(inputs), opened(inputs))
    assert model.preprocessing.input_size == (size, size)


@pytest.mark.parametrize(
    "data", [{}, {"crop_pct": 1.0, "mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 96, 96)}]
)
def test_the_preprocessing_is_nearly_that_of_timm(tmp_path: Path, data: dict[str, Any]) -> None:
    write_folder(tmp_path / "network", data={"interpolation": "bicubic", **data})
    model = kdaug.load(tmp_path / "network", device="cpu")
    opened = timm.create_model(f"local-dir:{tmp_path}/network", pretrained=True)
    transform = create_transform(**resolve_data_config(model=opened, use_test_size=True))
    colors = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(colors).resize((500, 375), Image.Resampling.BICUBIC)
    ours, theirs = model.preprocess(image), transform(image)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().mean() < 0.02
    assert (ours - theirs).abs().max() < 0.2


def test_the_test_sizes_are_used(folder: Path) -> None:
    published = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    change(folder, pretrained_cfg={**published, "test_input_size": [3, 192, 192], "test_crop_pct": 0.9})
    assert kdaug.load(folder, device="cpu").preprocessing.crop == CenterCrop(192, 0.9)


def test_class_names_may_be_a_mapping(folder: Path) -> None:
    change(folder, label_names={"2": "c", "0": "a", "1": "b"})
    assert kdaug.load(folder, device="cpu").classes == ("a", "b", "c")


def test_an_older_flat_configuration_is_read(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    flat = {**config["pretrained_cfg"], "architecture": config["architecture"], "labels": list(NAMES)}
    (folder / "config.json").write_text(json.dumps(flat))
    assert kdaug.load(folder, device="cpu").classes == NAMES


def test_other_interpolation_is_noted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kdaug")
    published = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    kdaug.load(folder, device="cpu")
    change(folder, pretrained_cfg={**published, "interpolation": "bilinear", "crop_mode": "squash"})
    kdaug.load(folder, device="cpu")
    assert caplog.messages[-1].startswith(
        f"note: {folder} is for images resized with bilinear interpolation, crop mode squash; kdaug uses bicubic"
    )
    change(folder, pretrained_cfg={**published, "interpolation": "bicubic"})
    caplog.clear()
    kdaug.load(folder, device="cpu")
    assert not caplog.messages


def without(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        published = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
        change(folder, pretrained_cfg={key: value for key, value in published.items() if key != name})

    return remove


def published(**fields: Any) -> Callable[[Path], None]:
    """Changes fields of pretrained_cfg."""

    def write(folder: Path) -> None:
        own = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
        change(folder, pretrained_cfg={**own, **fields})

    return write


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not a JSON object"),
        (lambda folder: (folder / "config.json").write_text("[1]"), r"config\.json is not a JSON object"),
        (
            lambda folder: change(folder, label_names=None),
            r'config\.json has no class names; add them, in the order of the outputs: "label_names": \[\.\.\.\]',
        ),
        (
            lambda folder: change(folder, label_names=["a", "b"]),
            r"config\.json has 2 class names for 3 outputs; give each output a name",
        ),
        (
            lambda folder: change(folder, label_names={"0": "a", "2": "b"}),
            "is not a configuration of timm .KeyError: 1",
        ),
        (lambda folder: change(folder, label_names=[1, 2, 3]), "label_names is not a list of names"),
        (lambda folder: change(folder, architecture=None), "is not a configuration of timm .KeyError: 'architecture'"),
        (lambda folder: change(folder, architecture="resnet5O"), "there is no network 'resnet5O' in timm or kdaug"),
        (lambda folder: change(folder, architecture="test_resnet"), r"model\.safetensors: bn1\.bias is"),
        (lambda folder: change(folder, pretrained_cfg=[1]), "is not a configuration of timm"),
        (lambda folder: change(folder, model_args=3), "is not a configuration of timm"),
        (
            lambda folder: change(folder, model_args={"pretrained_cfg": {"file": "evil.pth"}}),
            "pretrained_cfg is not an argument of a network",
        ),
        (lambda folder: change(folder, model_args={"nothing": 1}), "has no argument nothing"),
        (without("mean"), "is not a configuration of timm .KeyError: 'mean'"),
        (published(mean=[0.5]), "mean and std of 1 and 3 values for 3 channels"),
        (published(input_size=[3, 64, 96]), "takes images of 64 x 96 pixels, which are not square"),
        (published(input_size=[3, 0, 0]), "size 0 or crop_pct"),
        (published(crop_pct=1.5), "size 160 or crop_pct 1.5"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"weight file .*model\.safetensors does not exist"),
        (lambda folder: (folder / "model.safetensors").write_text("x"), r"model\.safetensors is not a weight file"),
    ],
)
def test_a_folder_that_cannot_be_loaded_is_one_line(
    folder: Path, damage: Callable[[Path], object], problem: str
) -> None:
    damage(folder)
    with pytest.raises(InputError, match=problem) as error:
        kdaug.load(folder)
    assert "\n" not in str(error.value)


def test_weights_are_read_from_the_folder_only(folder: Path) -> None:
    expected = load_file(folder / "model.safetensors")
    state = kdaug.load(folder, device="cpu").network.state_dict()
    assert all(torch.equal(expected[name], state[name]) for name in expected)
