"""Initial weights: loaded from every kind of file, adapted as timm does, and refused if they are of another network."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from support.hub import fill_cache, published_weights, refusing_address, use_hub
from torch import Tensor, nn

from kdaug import config
from kdaug.errors import InputError
from kdaug.networks import (
    NetworkInfo,
    create_network,
    load_initial_weights,
    native_image_size,
    pin_weights,
    resolve_initial_weights,
    save_weights,
    split_digest,
)
from kdaug.networks.weights import classifier_names

HALF, IMAGENET = ((0.5,) * 3, (0.5,) * 3), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OWN = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
NAME = "test_resnet"


def network_of(settings: config.Network, classes: int, channels: int = 3) -> nn.Module:
    torch.manual_seed(7)
    return create_network(settings.name, classes, channels, arguments=settings.arguments)


def info_of(settings: config.Network, classes: int, channels: int = 3, side: int = 32) -> NetworkInfo:
    mean, std = (settings.mean or (0.5,) * channels), (settings.std or (0.5,) * channels)
    return NetworkInfo(settings.name, tuple(f"class {i}" for i in range(classes)), mean, std, (side, side))


def trained(name: str = NAME, classes: int = 5, channels: int = 3) -> dict[str, Tensor]:
    """Weights that differ from all initial ones, also the running statistics."""
    torch.manual_seed(1)
    state = create_network(name, classes, channels).state_dict()
    return {key: value + torch.rand(value.shape) if value.is_floating_point() else value + 3
            for key, value in state.items()}  # fmt: skip


def load(settings: config.Network, classes: int, channels: int = 3) -> tuple[dict[str, Tensor], str]:
    """(state, message) of a network that has loaded its initial weights."""
    network = network_of(settings, classes, channels)
    message = load_initial_weights(network, settings, info_of(settings, classes, channels))
    return network.state_dict(), message


def assert_loaded(state: dict[str, Tensor], source: dict[str, Tensor], but: tuple[str, ...] = ()) -> None:
    """Fails unless `state` is `source`, except for the tensors `but`, which must differ."""
    assert state.keys() == source.keys()
    different = {name for name in state if state[name].shape != source[name].shape
                 or not torch.equal(state[name], source[name])}  # fmt: skip
    assert different == set(but)


CLASSIFIER = ("fc.weight", "fc.bias")


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("classes", [5, 4])
@pytest.mark.parametrize(
    ("save", "wrap"),
    [
        (torch.save, lambda state: state),
        (safetensors.torch.save_file, lambda state: state),
        (torch.save, lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}),
        (torch.save, lambda state: {"model": trained("test_resnet", 5), "model_ema": state}),
        (torch.save, lambda state: prefixed("module.", state)),
        (safetensors.torch.save_file, lambda state: prefixed("_orig_mod.", state)),
        (torch.save, lambda state: {"state_dict": prefixed("model.", state)}),
    ],
    ids=["torch", "safetensors", "timm", "EMA", "DDP", "compiled", "Lightning"],
)
def test_files_of_every_layout_are_loaded(
    save: Callable[..., None], wrap: Callable[[Any], Any], classes: int, tmp_path: Path
) -> None:
    state = trained()
    save(wrap(state), tmp_path / "w.bin")
    loaded, message = load(config.Network(NAME, weights=f"file:{tmp_path / 'w.bin'}"), classes)
    assert_loaded(loaded, state, () if classes == 5 else CLASSIFIER)
    assert all(not loaded[name].any() for name in CLASSIFIER) == (classes == 4)
    count, total = len(state) - (0 if classes == 5 else 2), len(state)
    of_classes = f"classifier for {classes} classes"
    kind = f"their {of_classes}" if classes == 5 else f"new {of_classes}, which starts from zero (fc.weight, fc.bias)"
    expected = f"initial weights: {count} of {total} tensors from file:{tmp_path}/w.bin; {kind}; normalization: "
    assert message.startswith(expected)


@pytest.mark.parametrize("kind", ["run", "file"])
@pytest.mark.parametrize(
    ("names", "keeps"), [(("class 0", "class 1"), True), (("class 1", "class 0"), False), (("class 0",), False)]
)
def test_classes_of_a_run_are_compared_by_name(kind: str, names: tuple[str, ...], keeps: bool, tmp_path: Path) -> None:
    state = trained(classes=len(names))
    info = NetworkInfo(NAME, names, *OWN, (24, 24))
    save_weights(state, info, tmp_path / "last.safetensors")
    source = f"run:{tmp_path}" if kind == "run" else f"file:{tmp_path}/last.safetensors"
    settings = resolve_initial_weights(config.Network(NAME, weights=source), 3)
    loaded, message = load(settings, 2)
    assert_loaded(loaded, state, () if keeps else CLASSIFIER)
    assert (settings.mean, settings.std) == OWN
    assert f"tensors from {source}; {'their' if keeps else 'new'} classifier for 2 classes" in message
    assert message.endswith("; normalization: their own; trained at 24x24 pixels, the images have 32x32 pixels")


@pytest.mark.parametrize("classes", [7, 1000])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("test_resnet.r160_in1k", {}), ("test_vit.r160_in1k", {"img_size": 64}), ("test_efficientnet.r160_in1k", {})],
)
def test_timms_weights_are_loaded_as_timm_does(
    name: str, arguments: dict[str, Any], channels: int, classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(2)
    fill_cache(tmp_path, name, {key: value + 1 for key, value in published_weights(name).items()})
    use_hub(monkeypatch, tmp_path, refusing_address())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    settings = resolve_initial_weights(config.Network(NAME, weights=f"timm:{name}", arguments=arguments), channels)
    settings = replace(settings, name=name.partition(".")[0])
    options = {"num_classes": classes, "in_chans": channels, **arguments}
    expected = timm.create_model(name, pretrained=True, **options).state_dict()
    loaded, message = load(settings, classes, channels)
    new = classes == 7
    classifier = classifier_names(network_of(settings, classes, channels)) if new else []
    assert_loaded(loaded, expected | {name: torch.zeros_like(expected[name]) for name in classifier})
    total = len(expected)
    assert f"{total - 2 * new} of {total} tensors from timm:{name}; {'new' if new else 'their'} classifier" in message
    assert ("adapted to 1 channel(s)" in message) == (channels == 1)
    assert "normalization: " + (f"timm's for {name}" if channels == 3 else "the dataset's") in message
    assert message.endswith("trained at 160x160 pixels, the images have 32x32 pixels")


def test_loading_timms_weights_draws_no_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_cache(tmp_path, "test_resnet.r160_in1k", published_weights("test_resnet"))
    use_hub(monkeypatch, tmp_path, refusing_address())
    settings = config.Network(NAME, pretrained=True)
    network = network_of(settings, 3)
    before = torch.get_rng_state()
    assert "tensors from timm:test_resnet;" in load_initial_weights(network, settings, info_of(settings, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_gray_weights_respond_to_gray_images_in_rgb_as_before(tmp_path: Path) -> None:
    torch.save(trained(channels=1), tmp_path / "w.pth")
    settings = config.Network(NAME, weights=f"file:{tmp_path / 'w.pth'}")
    gray, rgb = network_of(settings, 5, 1).eval(), network_of(settings, 5, 3).eval()
    load_initial_weights(gray, settings, info_of(settings, 5, 1))
    message = load_initial_weights(rgb, settings, info_of(settings, 5, 3))
    images = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(rgb(images.expand(-1, 3, -1, -1)), gray(images))
    assert "conv1.0.weight adapted to 3 channel(s)" in message


def test_kdaugs_networks_are_adapted_too(tmp_path: Path) -> None:
    torch.save(trained("wide_resnet10_1"), tmp_path / "w.pth")
    settings = config.Network("wide_resnet10_1", weights=f"file:{tmp_path / 'w.pth'}")
    loaded, message = load(settings, 5, 1)
    assert_loaded(loaded, trained("wide_resnet10_1"), ("stem.weight",))
    torch.testing.assert_close(loaded["stem.weight"], trained("wide_resnet10_1")["stem.weight"].sum(1, keepdim=True))
    assert "stem.weight adapted to 1 channel(s); normalization: the dataset's" in message


def test_two_classifiers_of_a_network_are_replaced(tmp_path: Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    arguments = {"img_size": 32, "depth": 1, "embed_dim": 12}
    state = {key: value + 1 for key, value in create_network(name, 9, 3, arguments=arguments).state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    settings = config.Network(name, weights=f"file:{tmp_path / 'w.pth'}", arguments=arguments)
    loaded, message = load(settings, 4)
    assert_loaded(loaded, state, ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias"))
    assert f"{len(state) - 4} of {len(state)} tensors" in message


def test_a_backbone_without_classifier_is_loaded(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in trained().items() if name not in CLASSIFIER}
    torch.save(state, tmp_path / "w.pth")
    loaded, message = load(config.Network(NAME, weights=f"file:{tmp_path / 'w.pth'}"), 5)
    assert_loaded({name: loaded[name] for name in state}, state)
    assert "new classifier for 5 classes" in message


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_050", "resnet18"])
def test_training_starts_from_equal_probabilities(name: str, tmp_path: Path) -> None:
    torch.save(network_of(config.Network(name), 9).state_dict(), tmp_path / "w.pth")
    settings = config.Network(name, weights=f"file:{tmp_path / 'w.pth'}")
    network = network_of(settings, 3)
    load_initial_weights(network, settings, info_of(settings, 3))
    loss = F.cross_entropy(network(torch.rand(6, 3, 32, 32)), torch.arange(6) % 3)
    assert loss.item() == pytest.approx(math.log(3))


def test_counters_of_batch_norms_may_be_missing(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in trained().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "w.pth")
    loaded, message = load(config.Network(NAME, weights=f"file:{tmp_path / 'w.pth'}"), 5)
    assert all(loaded[name] == 0 for name in loaded.keys() - state.keys())
    assert f"initial weights: {len(state)} of {len(loaded)} tensors" in message


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda state: trained("wide_resnet10_1"), "lacks bn1.bias; is it of another network?"),
        (lambda state: {"a": torch.zeros(3)}, "lacks bn1.bias; is it of another network?"),
        (lambda state: {k: v for k, v in state.items() if k != "layer2.0.conv1.weight"}, "lacks layer2.0.conv1.weight"),
        (lambda state: state | {"x": torch.zeros(1)}, "has x, which the network does not have"),
        (
            lambda state: state | {"layer1.0.conv1.weight": torch.zeros(3, 3, 3, 3)},
            r": layer1.0.conv1.weight is \[3, 3, 3, 3\], but the network has \[32, 32, 3, 3\]",
        ),
        (lambda state: state | {"conv1.0.weight": torch.zeros(16, 4, 3, 3)}, r"conv1.0.weight is \[16, 4, 3, 3\]"),
        (lambda state: state | {"bn1.bias": torch.zeros(32, dtype=torch.int8)}, "bn1.bias is torch.int8"),
    ],
    ids=["another network", "nothing", "one is missing", "one too many", "shape", "channels", "integers"],
)
def test_weights_that_do_not_fit_are_an_error_with_the_first_tensor(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], problem: str, tmp_path: Path
) -> None:
    torch.save(change(trained()), tmp_path / "w.pth")
    settings = config.Network(NAME, weights=f"file:{tmp_path / 'w.pth'}")
    network = network_of(settings, 4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    start = re.escape(f"initial weights for {NAME}: weight file {tmp_path / 'w.pth'}")
    with pytest.raises(InputError, match=f"^{start}.*{problem}"):
        load_initial_weights(network, settings, info_of(settings, 4))
    assert_loaded(network.state_dict(), before)


def test_a_run_of_another_network_is_named(tmp_path: Path) -> None:
    info = NetworkInfo("wide_resnet10_1", ("a", "b"), *OWN, (8, 8))
    save_weights(trained("wide_resnet10_1", 2), info, tmp_path / "last.safetensors")
    with pytest.raises(InputError, match=r"lacks bn1\.bias; they are of wide_resnet10_1: set student.name to it"):
        load(config.Network(NAME, weights=f"run:{tmp_path}"), 2)


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        torch.save({"x": torch.full((2,), value)}, tmp_path / f"{name}.pth")
    pinned = {name: pin_weights(f"file:{tmp_path}/{name}.pth", "student.weights") for name in "abc"}
    assert {name: split_digest(text)[0] for name, text in pinned.items()} == {
        name: f"file:{tmp_path}/{name}.pth" for name in "abc"
    }
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    digests = {name: split_digest(pin_weights(f"file:{tmp_path}/{name}.pth", "student.weights"))[1] for name in "abc"}
    assert digests["a"] == digests["b"] != digests["c"]
    assert all(re.fullmatch("[0-9a-f]{10}", digest) for digest in digests.values())
    assert pin_weights(pinned["a"], "student.weights") == pinned["a"]
    assert pin_weights("timm:resnet18", "student.weights") == "timm:resnet18"


def test_a_file_that_has_changed_is_refused_or_ignored(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(trained(), path)
    settings = resolve_initial_weights(config.Network(NAME, weights=f"file:{path}"), 3)
    torch.save(trained(classes=6), path)
    assert resolve_initial_weights(settings, 3) == settings
    with pytest.raises(InputError, match=r"w\.pth has changed: its digest is #\w{10}, not #\w{10}; restore the file"):
        load(settings, 5)
    path.unlink()
    assert resolve_initial_weights(settings, 3) == settings


@pytest.mark.parametrize(
    ("name", "weights", "channels", "expected"),
    [
        ("test_vit", "plain", 3, HALF),
        ("resnet18", "plain", 3, IMAGENET),
        ("wide_resnet10_1", "plain", 3, (None, None)),
        ("test_vit", "plain", 1, (None, None)),
        ("test_vit", "timm:test_vit", 3, HALF),
        ("test_resnet", "timm:vit_tiny_patch16_224", 3, HALF),
        ("test_vit", "timm:test_vit", 1, (None, None)),
        ("test_vit", "kdaug", 3, OWN),
        ("test_vit", None, 3, (None, None)),
    ],
)
def test_mean_and_std_come_with_the_weights(
    name: str, weights: str | None, channels: int, expected: tuple[Any, Any], tmp_path: Path
) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "plain")
    save_weights({"a": torch.zeros(1)}, NetworkInfo(name, ("a",), *OWN, (8, 8)), tmp_path / "kdaug")
    source = f"file:{tmp_path / weights}" if weights in ("plain", "kdaug") else weights
    settings = resolve_initial_weights(config.Network(name, weights=source), channels)
    assert (settings.mean, settings.std) == expected
    assert resolve_initial_weights(settings, channels) == settings


def test_mean_and_std_may_be_given_for_a_plain_file_only(tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "plain")
    save_weights(trained(), NetworkInfo(NAME, tuple("abcde"), *OWN, (8, 8)), tmp_path / "kdaug")
    given = config.Network(NAME, weights=f"file:{tmp_path / 'plain'}", mean=OWN[1], std=OWN[0])
    settings = resolve_initial_weights(given, 3)
    assert (settings.mean, settings.std) == OWN[::-1]
    assert "normalization: student.mean and student.std" in load(settings, 5)[1]
    for source in (f"file:{tmp_path / 'kdaug'}", "timm:test_resnet"):
        with pytest.raises(InputError, match=r"student\.mean and student\.std are set, but .* has its own: .*; leave"):
            resolve_initial_weights(replace(given, weights=source), 3)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("run:{}", "is not a finished run: it has no last.safetensors"),
        ("run:{}/gone,run:x", "folder .*gone,run:x does not exist; several teachers are written run:A,run:B"),
        ("run:{}/w.pth", "w.pth is a file, not a run; set student.weights to file:"),
        ("file:{}", "is a folder, not a weight file; set student.weights to run:"),
        ("file:{}/gone.pth", "weight file .*/gone.pth does not exist"),
        ("timm:resnet5O", "no network 'resnet5O' in timm; did you mean resnet50"),
        ("timm:wide_resnet10_1", "timm has no published weights for wide_resnet10_1; use a run or a weight file"),
    ],
)
def test_weights_that_cannot_be_found_are_an_error(source: str, problem: str, tmp_path: Path) -> None:
    torch.save(trained(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=problem):
        resolve_initial_weights(config.Network(NAME, weights=source.format(tmp_path)), 3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (config.Network("efficientnet_b0"), (224, False)),
        (config.Network("test_resnet", pretrained=True), (160, False)),
        (config.Network("vit_tiny_patch16_224"), (224, True)),
        (config.Network("vit_tiny_patch16_224", arguments={"img_size": 96}), (96, True)),
        (config.Network("test_vit", weights="timm:vit_small_patch16_384.augreg_in21k_ft_in1k"), (384, True)),
        (config.Network("wide_resnet10_1"), (None, False)),
    ],
)
def test_native_image_size(settings: config.Network, expected: tuple[int | None, bool]) -> None:
    assert native_image_size(settings) == expected


def test_the_size_of_a_runs_weights_is_known(tmp_path: Path) -> None:
    save_weights(trained("wide_resnet10_1"), info_of(config.Network("wide_resnet10_1"), 5, side=48), tmp_path / "w")
    settings = config.Network("wide_resnet10_1", weights=f"file:{tmp_path}/w")
    assert native_image_size(settings) == (48, False)
    with pytest.raises(InputError, match="does not exist"):
        native_image_size(replace(settings, weights=f"file:{tmp_path}/gone"))
