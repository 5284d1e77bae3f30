"""The folder for timm: timm.create_model opens it, and timm's own preprocessing gives the logits of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from support.exports import damaged

from kdaug import InputError
from kdaug.export import timm_folder
from kdaug.export.reference import make_reference
from kdaug.export.source import ExportSource, load_source
from kdaug.export.timm_folder import export_timm, network_module
from kdaug.networks import NetworkInfo, create_network, load_network, save_weights


def with_timm(folder: Path, images: list[Image.Image]) -> tuple[Any, torch.Tensor]:
    """The network that timm loads, and its logits for images that timm prepares."""
    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    with torch.no_grad():
        return network, network(torch.stack([transform(image) for image in images]))


def test_timm_gives_the_same_logits_for_images_in_memory(gray_run: Path, tmp_path: Path) -> None:
    source = load_source(gray_run, "last")
    reference = make_reference(source, None)
    result = export_timm(source, reference, tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["config.json", "model.safetensors"]
    images = [Image.fromarray(image[..., 0].numpy()) for image in reference.images]
    network, logits = with_timm(tmp_path / "a", images)
    torch.testing.assert_close(logits, reference.logits, rtol=0, atol=1e-4)
    assert network.pretrained_cfg["label_names"][:2] == ["T-shirt/top", "Trouser"]
    check = json.loads((tmp_path / "a" / "config.json").read_text())["kdaug"]["check"]
    assert check["max_logit_difference"] == result.max_logit_difference <= result.tolerance


def test_timm_crops_photos_as_the_evaluation_does(photo_run: Path, photos: Path, tmp_path: Path) -> None:
    """Up to the order of crop and resize: the pixels differ little, so the probabilities do too."""
    source = load_source(photo_run, "last")
    reference = make_reference(source, photos)
    export_timm(source, reference, tmp_path / "a")
    _, logits = with_timm(tmp_path / "a", [Image.open(file).convert("RGB") for file in sorted(photos.rglob("*.jpg"))])
    assert (logits.softmax(1) - reference.logits.softmax(1)).abs().mean() < 0.03
    config = json.loads((tmp_path / "a" / "config.json").read_text())["pretrained_cfg"]
    assert (config["input_size"], config["crop_pct"], config["interpolation"]) == ([3, 32, 32], 0.875, "bicubic")


def test_arguments_of_a_network_are_kept(vit_file: Path, photos: Path, tmp_path: Path) -> None:
    source = load_source(vit_file, "last")
    reference = make_reference(source, photos)
    export_timm(source, reference, tmp_path / "a")
    network = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True).eval()
    assert list(network.pretrained_cfg["input_size"]) == [3, 32, 32]
    images = source.info.input_format.normalize(reference.images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference.logits, rtol=0, atol=1e-4)


def test_timm_can_fine_tune_it_for_other_classes_and_channels(source: ExportSource, tmp_path: Path) -> None:
    """The names of first convolution and classifier are right."""
    export_timm(source, make_reference(source, None), tmp_path / "a")
    network = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True, num_classes=7, in_chans=1)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    state, own = network.state_dict(), source.network.state_dict()
    assert torch.equal(state["stages.0.0.conv1.weight"], own["stages.0.0.conv1.weight"])
    torch.testing.assert_close(state["stem.weight"], own["stem.weight"].sum(1, keepdim=True))


def test_the_weights_are_a_weight_file_of_kdaug(source: ExportSource, tmp_path: Path) -> None:
    export_timm(source, make_reference(source, None), tmp_path / "a")
    network, info = load_network(tmp_path / "a" / "model.safetensors")
    assert info == source.info
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), source.network.parameters(), strict=True))


def test_weights_that_differ_from_the_run_are_refused(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = damaged(source).network.state_dict()
    monkeypatch.setattr(timm_folder, "save_weights", lambda _, info, path: save_weights(state, info, path))
    with pytest.raises(InputError, match="does not agree with the run"):
        export_timm(source, make_reference(source, None), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_wrong_preprocessing_is_refused(source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = timm_folder.timm_config(source)
    config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
    monkeypatch.setattr(timm_folder, "timm_config", lambda _: config)
    with pytest.raises(InputError, match="does not agree with the run"):
        export_timm(source, make_reference(source, None), tmp_path / "a")


def test_a_network_that_timm_cannot_load_is_one_line(
    source: ExportSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = dict(list(source.network.state_dict().items())[:-1])
    monkeypatch.setattr(timm_folder, "save_weights", lambda _, info, path: save_weights(state, info, path))
    with pytest.raises(InputError, match=r"timm cannot load network wide_resnet10_1 again: .*fc\.bias") as error:
        export_timm(source, make_reference(source, None), tmp_path / "a")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_timms_loading_is_refused(photos: Path, tmp_path: Path) -> None:
    info = NetworkInfo("small_convnet", ("a", "b"), (0.5,) * 3, (0.5,) * 3, (16, 16))
    save_weights(create_network("small_convnet", 2, 3).state_dict(), info, tmp_path / "w.safetensors")
    source = load_source(tmp_path / "w.safetensors", "last")
    with pytest.raises(InputError, match="network small_convnet cannot be exported to timm: it has no pretrained_cfg"):
        export_timm(source, make_reference(source, photos), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert network_module(source) == "support.networks"


def test_the_module_that_registers_a_network_is_known(source: ExportSource, vit_file: Path) -> None:
    assert network_module(source) == "kdaug.networks"
    assert network_module(load_source(vit_file, "last")) is None
