"""timm's published weights: read from the cache without a request, downloaded, or one error within seconds."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants
from support.hub import fill_cache, hub_with, published_weights, refusing_address, silent_server, use_hub
from torch import Tensor

from kdaug.errors import InputError
from kdaug.networks import create_network
from kdaug.networks.download import read_published_weights

NAME = "test_resnet.r160_in1k"
URL = f"/timm/{NAME}/resolve/main"


@pytest.fixture
def weights() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return published_weights(NAME)


@pytest.fixture
def no_warnings(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails if any library warns."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", [NAME, "test_resnet"])
def test_cached_weights_need_no_hub(
    name: str, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_warnings: None
) -> None:
    fill_cache(tmp_path, NAME, weights)
    with hub_with({}) as (address, requests):
        use_hub(monkeypatch, tmp_path, address)
        network = create_network(name, 1000, 3, pretrained=True)
    assert requests == []
    assert_same(network.state_dict(), weights)
    assert not any(isinstance(value, dict) for value in network.pretrained_cfg.values()), "the tensors are kept twice"


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_are_downloaded_once(
    file: str, weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(weights, tmp_path / "w.bin")
    content = safetensors.torch.save(weights) if file == "model.safetensors" else (tmp_path / "w.bin").read_bytes()
    with hub_with({f"{URL}/{file}": content}) as (address, requests):
        use_hub(monkeypatch, tmp_path / "cache", address)
        assert_same(create_network(NAME, 1000, 3, pretrained=True).state_dict(), weights)
        assert f"GET {URL}/{file}" in requests
        requests.clear()
        assert_same(create_network(NAME, 1000, 3, pretrained=True).state_dict(), weights)
        assert requests == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("refusing", "Connection refused"),
        ("silent", "(timed out|no answer within 5 seconds|[Rr]ead timeout)"),
        ("broken", "the server answers with status 503"),
        ("empty", ""),
        ("offline", "HF_HUB_OFFLINE is set"),
    ],
)
def test_weights_that_cannot_be_had_are_one_error_within_seconds(
    kind: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_warnings: None
) -> None:
    servers = {
        "silent": silent_server(), "broken": hub_with({}, status=503), "empty": hub_with({}),
    }  # fmt: skip
    with ExitStack() as stack:
        server = stack.enter_context(servers.get(kind, nullcontext(refusing_address())))
        address = server if isinstance(server, str) else server[0]
        use_hub(monkeypatch, tmp_path, address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", kind == "offline")
        started = time.monotonic()
        with pytest.raises(InputError) as error:
            create_network("test_resnet", 1000, 3, pretrained=True)
        assert time.monotonic() - started < 10
    problem, hint = error.value.problem, error.value.hint
    start = f"timm's weights {NAME} are not in the cache {tmp_path} and cannot be downloaded from {address}: "
    assert problem.startswith(start)
    assert re.search(reason, problem)
    assert hint.startswith(f"download {address}{URL}/model.safetensors elsewhere and use file:PATH in student.weights")
    assert "\n" not in str(error.value)


def test_a_slow_hub_may_be_given_more_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 1)
    with silent_server() as address:
        use_hub(monkeypatch, tmp_path, address)
        started = time.monotonic()
        with pytest.raises(InputError, match="cannot be downloaded"):
            read_published_weights(NAME)
        assert time.monotonic() - started < 4


def test_weights_outside_the_hub_are_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm has a few weights that torch.hub downloads, without a limit of time."""
    name, address = "legacy_seresnet18.in1k", refusing_address()
    published = timm.get_pretrained_cfg(name)
    assert not published.hf_hub_id
    moved = type(published)(**{**vars(published), "url": f"{address}/seresnet18-4bb0ce65.pth"})
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda *_: moved)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(InputError, match=f"{name} are not .* cannot be downloaded from {address}: .*refused"):
        read_published_weights(name)
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    monkeypatch.setattr("kdaug.networks.download.check_cached_file", lambda url: url == moved.url)
    assert read_published_weights(name) is None, "timm reads the cached file"


def test_a_damaged_download_is_named(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = fill_cache(tmp_path, NAME, weights)
    file.write_bytes(file.read_bytes()[:-9])
    use_hub(monkeypatch, tmp_path, refusing_address())
    with pytest.raises(InputError, match=r"model\.safetensors are damaged; delete this file"):
        create_network(NAME, 1000, 3, pretrained=True)


def test_networks_without_published_weights_have_none() -> None:
    assert read_published_weights("wide_resnet16_1") is None
