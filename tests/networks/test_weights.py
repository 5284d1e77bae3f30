"""Weight files: saved weights are restored, files of other tools are read, and code in a file is never run."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from kdaug.errors import InputError
from kdaug.networks import (
    NetworkInfo,
    create_network,
    load_network,
    load_state,
    match_names,
    read_weights,
    save_weights,
)

CARD = NetworkInfo("wide_resnet10_1", ("cat", "dög", "<b>"), (0.25,), (0.5,), (28, 30))


@pytest.fixture
def network() -> nn.Module:
    """A network whose running statistics and counters are not the initial ones."""
    torch.manual_seed(0)
    network = create_network(CARD.network, len(CARD.classes), len(CARD.mean))
    network(torch.randn(4, 1, 8, 8))
    return network


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


def test_a_saved_network_is_restored_with_its_card(network: nn.Module, tmp_path: Path) -> None:
    save_weights(network.to(memory_format=torch.channels_last).state_dict(), CARD, tmp_path / "w.safetensors")
    restored, info = load_network(tmp_path / "w.safetensors")
    assert info == CARD
    assert (info.input_format.mean, info.input_format.std, info.input_format.size) == ((0.25,), (0.5,), (28, 30))
    assert_same(network.state_dict(), restored.state_dict())
    images = torch.randn(2, 1, 9, 9)
    torch.testing.assert_close(network.eval()(images), restored.eval()(images))


def test_saving_replaces_the_file_and_leaves_no_other(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("old")
    save_weights(network.state_dict(), CARD, path)
    assert os.listdir(tmp_path) == ["w.safetensors"]
    assert_same(network.state_dict(), safetensors.torch.load_file(path))


def test_a_failed_save_leaves_the_old_file(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(network.state_dict(), CARD, path)
    assert path.read_text() == "old"


def prefixed(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model_ema": state},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
        lambda state: prefixed("_orig_mod.", state),
        lambda state: prefixed("module._orig_mod.", state),
        lambda state: {"model": prefixed("_orig_mod.module.", state)},
        lambda state: {name.replace("stages.", "stages._orig_mod."): tensor for name, tensor in state.items()},
        lambda state: {"state_dict": state, "args": argparse.Namespace(lr=0.1, model="x", cooldown=None)},
    ],
    ids=[
        *("plain", "state_dict", "model", "model_ema", "module.", "module. in state_dict", "compiled"),
        *("DDP of compiled", "compiled DDP", "compiled stages", "timm's arguments"),
    ],
)
def test_torch_files_of_other_trainers_are_read(
    wrap: Callable[[dict[str, Any]], Any], zipped: bool, network: nn.Module, tmp_path: Path
) -> None:
    torch.save(wrap(network.state_dict()), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    tensors, info = read_weights(tmp_path / "w.pth")
    assert info is None
    assert_same(network.state_dict(), tensors)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema"])
@pytest.mark.parametrize("other", ["state_dict", "model"])
def test_the_average_of_the_weights_is_preferred(
    network: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture, key: str, other: str
) -> None:
    last = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    torch.save({other: last, key: network.state_dict(), "epoch": 3}, tmp_path / "w.pth")
    with caplog.at_level("INFO"):
        assert_same(network.state_dict(), read_weights(tmp_path / "w.pth")[0])
    assert f"w.pth: using {key}, the moving average of the weights" in caplog.text
    torch.save({other: last, key: None}, tmp_path / "w.pth")
    assert_same(last, read_weights(tmp_path / "w.pth")[0])


def test_the_prefix_of_lightning_is_removed_if_the_network_has_none(network: nn.Module) -> None:
    state = network.state_dict()
    assert_same(match_names(network, prefixed("model.", state)), state)
    wrapper = nn.ModuleDict({"model": network})
    assert_same(match_names(wrapper, prefixed("model.", state)), wrapper.state_dict())
    mixed = {**prefixed("model.", state), "criterion.weight": torch.zeros(1)}
    assert match_names(network, mixed) == mixed


def test_safetensors_of_other_trainers_lose_their_prefixes(network: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(prefixed("_orig_mod.", network.state_dict()), tmp_path / "w.safetensors")
    assert_same(network.state_dict(), read_weights(tmp_path / "w.safetensors")[0])
    twice = {"a": torch.zeros(1), "module.a": torch.ones(1)}
    safetensors.torch.save_file(twice, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"differ only in the prefix module. or _orig_mod."):
        read_weights(tmp_path / "w.safetensors")


def test_a_whole_pickled_network_is_refused(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"save its weights alone: torch.save\(network.state_dict\(\), PATH\)"):
        read_weights(tmp_path / "w.pth")


def test_arguments_are_stored_with_the_weights(tmp_path: Path) -> None:
    arguments = {"img_size": 16, "patch_size": 8, "depth": 1, "qkv_bias": False}
    network = create_network("vit_tiny_patch16_224", 3, 3, arguments=arguments)
    info = NetworkInfo("vit_tiny_patch16_224", ("a", "b", "c"), (0.5,) * 3, (0.5,) * 3, (16, 16), arguments)
    save_weights(network.state_dict(), info, tmp_path / "w.safetensors")
    restored, read = load_network(tmp_path / "w.safetensors")
    assert read == info
    assert_same(network.state_dict(), restored.state_dict())
    assert restored(torch.zeros(1, 3, 16, 16)).shape == (1, 3)


def test_what_evaluation_does_with_images_is_stored_if_it_is_unusual(network: nn.Module, tmp_path: Path) -> None:
    """So files of runs on photos are the same as those of older versions."""
    path, unusual = tmp_path / "w.safetensors", replace(CARD, photos=False, evaluate_size=40)
    for info, fields in ((CARD, {}), (unusual, {"photos": False, "evaluate_size": 40})):
        save_weights(network.state_dict(), info, path)
        assert read_weights(path)[1] == info
        with safetensors.safe_open(path, "pt") as file:
            stored = json.loads(file.metadata()["kdaug"])
        assert {name: stored[name] for name in stored.keys() - {"network", "classes", "mean", "std", "size"}} == fields


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg", "cache_dir", "pretrained_strict"])
def test_arguments_in_a_file_cannot_make_timm_read_files(network: nn.Module, tmp_path: Path, argument: str) -> None:
    save_weights(network.state_dict(), replace(CARD, arguments={argument: "evil.pth"}), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=f"{argument} is not an argument of a network, but of timm's loading"):
        load_network(tmp_path / "w.safetensors")


def test_the_format_is_recognized_by_content_not_by_name(network: nn.Module, tmp_path: Path) -> None:
    save_weights(network.state_dict(), CARD, tmp_path / "w.pth")
    torch.save(network.state_dict(), tmp_path / "w.safetensors")
    assert read_weights(tmp_path / "w.pth")[1] == CARD
    assert_same(network.state_dict(), read_weights(tmp_path / "w.safetensors")[0])


def assert_gives_no_unsafe_advice(message: str) -> None:
    """torch's own message explains, in bold, how to load such a file without protection; ours must not repeat it."""
    assert not any(part in message for part in ("`weights_only`", "can still be loaded", "\x1b"))


class _RunsCommand:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch zip", "torch legacy", "plain pickle"])
def test_a_file_that_would_run_code_is_refused(form: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "w.pth"
    content = {"weight": torch.zeros(2), "command": _RunsCommand(f"touch {canary}")}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps({"command": content["command"]}, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch zip")
    with pytest.raises(InputError, match="not a weight file") as error:
        read_weights(path)
    assert not canary.exists()
    assert str(path) in str(error.value)
    assert_gives_no_unsafe_advice(str(error.value))
    if form == "plain pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert canary.exists(), "the file of this test runs its command if it is loaded without protection"


OTHER_CONTENT = {
    "empty": b"",
    "text": b"hello\n",
    "text that pickle takes for an opcode": b"a list of networks\n",
    "stop opcode": b".",
    "empty pickle": b"\x80\x02.",
    "json": b'{"a": 1}',
    "zip header": b"PK\x03\x04" + bytes(50),
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
    "absurd safetensors header": (1 << 40).to_bytes(8, "little") + b"{}",
}


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", OTHER_CONTENT.values(), ids=OTHER_CONTENT)
def test_a_file_of_another_format_is_refused(content: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is not a weight file") as error:
        read_weights(tmp_path / name)
    assert_gives_no_unsafe_advice(str(error.value))


@pytest.mark.parametrize("content", [[1, 2], {}, {"a": 1}, torch.zeros(3), {"state_dict": {}}, {"model": {"a": "b"}}])
def test_a_torch_file_without_named_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth is not a weight file: it has no plain tensors by name"):
        read_weights(tmp_path / "w.pth")


def saved(form: str) -> bytes:
    state = nn.Linear(3, 2).state_dict()
    if form == "safetensors":
        return safetensors.torch.save(state)
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=form == "torch zip")
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    ("form", "ending"), [("safetensors", ".safetensors"), ("torch zip", ".pth"), ("torch legacy", ".pth")]
)
def test_a_damaged_file_is_refused_or_has_tensors(form: str, ending: str, tmp_path: Path) -> None:
    whole, path = saved(form), tmp_path / f"w{ending}"
    rng, reasons = np.random.default_rng(0), []
    for attempt in range(150):
        content = bytearray(whole)
        if attempt % 2:
            del content[int(rng.integers(len(content))) :]
        for _ in range(3 if content else 0):
            content[rng.integers(min(len(content), 400))] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_weights(path)[0].values())
        except InputError as error:
            reasons.append(str(error))
    assert all(str(path) in reason for reason in reasons)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pth", tmp_path):
        with pytest.raises(InputError, match=f"weight file {path} does not exist"):
            read_weights(path)


@pytest.mark.parametrize(
    "info", ["not json", "[]", "{}", '{"network": "x", "classes": 3, "mean": [], "std": [], "size": [1, 1]}',
             '{"network": "x", "classes": [], "mean": [], "std": [], "size": [1]}',
             '{"network": "x", "classes": [], "mean": [], "std": [], "size": [1, 1], "photos": 1}',
             '{"network": "x", "classes": [], "mean": [], "std": [], "size": [1, 1], "evaluate_size": 0}',
             '{"network": "x", "classes": [], "mean": [], "std": [], "size": [1, 1], "evaluate_size": "40"}'],
)  # fmt: skip
def test_an_unreadable_card_is_an_error(info: str, tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", {"kdaug": info})
    with pytest.raises(InputError, match=r"w\.safetensors has kdaug metadata that cannot be read"):
        read_weights(tmp_path / "w.safetensors")


def test_a_file_without_a_card_is_not_a_network(network: nn.Module, tmp_path: Path) -> None:
    safetensors.torch.save_file(network.state_dict(), tmp_path / "w.safetensors", {"format": "pt"})
    tensors, info = read_weights(tmp_path / "w.safetensors")
    assert info is None
    assert_same(network.state_dict(), tensors)
    with pytest.raises(InputError, match="does not name its network: it was not written by kdaug"):
        load_network(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("other", "classes", "channels", "message"),
    [
        ("wide_resnet10_1", 7, 1, "is for 7 classes, but the data have 3"),
        ("wide_resnet10_1", 3, 3, r"stem.weight is \[16, 3, 3, 3\], but the network has \[16, 1, 3, 3\]"),
        ("wide_resnet10_2", 3, 1, r"is \[.*\], but the network has \[.*\]"),
        ("wide_resnet16_1", 3, 1, "has stages.0.1.*, which the network does not have; is it of another network"),
        ("mobilenetv3_small_050", 3, 1, "lacks .*; is it of another network"),
    ],
)
def test_weights_of_another_network_are_an_error(
    other: str, classes: int, channels: int, message: str, network: nn.Module
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    theirs = create_network(other, classes, channels).state_dict()
    with pytest.raises(InputError, match=f"weight file w.pth.*{message}"):
        load_state(network, theirs, 3, Path("w.pth"))
    assert_same(before, network.state_dict())


def test_a_width_equal_to_the_number_of_classes_is_not_confused() -> None:
    network = create_network("wide_resnet10_1", 16, 3)
    theirs = network.state_dict() | {"stem.weight": torch.zeros(24, 3, 3, 3)}
    with pytest.raises(InputError, match=r"stem.weight is \[24, 3, 3, 3\], but the network has \[16, 3, 3, 3\]"):
        load_state(network, theirs, 16, Path("w.pth"))


def test_a_scalar_instead_of_a_vector_is_an_error() -> None:
    network = create_network("wide_resnet10_1", 16, 3)
    with pytest.raises(InputError, match=r"fc.bias is \[\], but the network has \[16\]"):
        load_state(network, network.state_dict() | {"fc.bias": torch.tensor(0.0)}, 16, Path("w.pth"))


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_weights_that_are_not_floating_point_are_an_error(tmp_path: Path, dtype: torch.dtype) -> None:
    network = create_network("wide_resnet10_1", 10, 1)
    torch.save({name: value.to(dtype) for name, value in network.state_dict().items()}, tmp_path / "w.pth")
    tensors, _ = read_weights(tmp_path / "w.pth")
    with pytest.raises(InputError, match="but must be floating point"):
        load_state(network, tensors, 10, tmp_path / "w.pth")


@pytest.mark.parametrize("value", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_sparse_and_meta_tensors_are_refused(tmp_path: Path, value: torch.Tensor) -> None:
    torch.save({"weight": value}, tmp_path / "w.pth")
    with pytest.raises(InputError, match="it has no plain tensors by name"):
        read_weights(tmp_path / "w.pth")
