"""kdaug train from weights of a run, a file or timm: what is printed and left on disk, and errors in one line."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.commands import assert_one_line, running_command
from support.hub import fill_cache, hub_with, published_weights, refusing_address, silent_server, use_hub
from support.recipes import PHOTOS_FLAGS

from kdaug.config import read_recipe
from kdaug.networks import create_network, load_network

ALONE = ("--teacher.source", "none", "--data.workers", "0")
IMAGENET_NAMES = {"cross": "n01440764", "disc": "n02102040", "square": "n02979186"}
SECONDS = 10
"""More than an error may take on a busy machine; timm alone takes 47 seconds."""


@pytest.fixture
def imagenet_shapes(shapes_copy: Path) -> Path:
    """Photos of three classes with names of ImageNet's classes."""
    for name, imagenet_name in IMAGENET_NAMES.items():
        (shapes_copy / name).rename(shapes_copy / imagenet_name)
    return shapes_copy


@pytest.mark.parametrize("kind", ["run", "file"])
def test_photos_start_from_a_run_on_other_classes(
    kdaug: Callable, demo_run: Path, shapes: Path, tmp_path: Path, kind: str
) -> None:
    """From ten classes of gray images of 28 pixels to three classes of photos of 32 pixels."""
    source = f"run:{demo_run}" if kind == "run" else f"file:{demo_run}/last.safetensors"
    flags = ("--data.root", shapes, "--run.dir", tmp_path / "run", "--student.weights", source)
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags)
    assert (result.code, result.err) == (0, "")
    (line,) = (line for line in result.out.splitlines() if line.startswith("initial weights"))
    assert line == (
        f"initial weights: 44 of 46 tensors from {source}; new classifier for 3 classes, which starts from zero "
        "(fc.weight, fc.bias); stem.weight adapted to 3 channel(s); normalization: the dataset's; "
        "trained at 28x28 pixels, the images have 32x32 pixels"
    )
    assert (read_recipe(tmp_path / "run" / "recipe.yaml").student.weights or "").startswith(f"{source}#")
    evaluated = json.loads(kdaug("eval", tmp_path / "run", "--json", "--run.device", "cpu").out)
    assert f"error {evaluated['top1_error']:.2f} %" in result.out


def test_training_again_from_a_recipe_gives_the_same_run(
    kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path
) -> None:
    flags = ("--data.root", shapes, "--student.weights", f"run:{photos_run}")
    assert kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags, "--run.dir", tmp_path / "a").code == 0
    result = kdaug("train", tmp_path / "a" / "recipe.yaml", "--run.dir", tmp_path / "b")
    assert "46 of 46 tensors" in result.out
    assert "their classifier for 3 classes; normalization: their own\n" in result.out
    weights = [(tmp_path / name / "last.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_a_timm_checkpoint_and_its_normalization(kdaug: Callable, shapes: Path, tmp_path: Path) -> None:
    state = create_network("resnet18", 7, 3).state_dict()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 9}, tmp_path / "w.pth"
    )
    flags = ("--data.root", shapes, "--run.dir", tmp_path / "run", "--student.name", "resnet18")
    mean_std = ("--student.mean", "0.4", "0.5", "0.6", "--student.std", "0.2", "0.2", "0.2")
    weights = ("--student.weights", f"file:{tmp_path}/w.pth")
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags, *weights, *mean_std)
    assert result.code == 0, result.err
    zero = ", which starts from zero (fc.weight, fc.bias)"
    expected = f"; new classifier for 3 classes{zero}; normalization: student.mean and student.std\n"
    assert f"initial weights: 120 of 122 tensors from file:{tmp_path}/w.pth{expected}" in result.out
    info = load_network(tmp_path / "run" / "last.safetensors")[1]
    assert (info.mean, info.std, info.size) == ((0.4, 0.5, 0.6), (0.2, 0.2, 0.2), (32, 32))
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *flags, "--student.name", "resnet34", *weights,
                   "--run.dir", tmp_path / "b")  # fmt: skip
    assert result.code == 2
    assert_one_line(result.err, f"initial weights for resnet34: weight file {tmp_path}/w.pth lacks layer1.2.")
    assert not (tmp_path / "b").exists()


def test_a_stopped_run_goes_on_without_its_weights(kdaug: Callable, shapes: Path, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    safetensors.torch.save_file(create_network("wide_resnet10_1", 5, 3).state_dict(), weights)
    flags = [*PHOTOS_FLAGS, *ALONE, "--data.root", shapes, "--run.dir", tmp_path / "run",
             "--student.weights", f"file:{weights}", "--run.checkpoint-steps", "1"]  # fmt: skip
    assert kdaug("train", "photos", *flags).code == 0
    weights.unlink()
    (tmp_path / "run" / "last.safetensors").unlink()  # as if it had been stopped just before its end
    for again in (("train", "photos", *flags), ("train", tmp_path / "run")):
        result = kdaug(*again, "--run.resume")
        assert result.code == 0, result.err
        assert "initial weights" not in result.out
    result = kdaug("train", "photos", *flags, "--run.dir", tmp_path / "new")
    assert_one_line(result.err, f"weight file {weights} does not exist")


def command(kind: str, photos: Path, run: Path) -> list[str | Path]:
    """A command that needs timm's weights."""
    train = ["train", "photos", *PHOTOS_FLAGS, "--data.root", photos, "--run.dir", run]
    return {
        "pretrained": [*train, *ALONE, "--student.name", "test_resnet", "--student.pretrained"],
        "weights": [*train, *ALONE, "--student.name", "test_resnet", "--student.weights", "timm:test_resnet"],
        "teacher's": [*train, "--teacher.network", "test_resnet", "--teacher.weights", "timm:test_resnet"],
        "teacher": [*train, "--teacher.source", "timm:test_resnet"],
        "eval": ["eval", "timm:test_resnet", "--data.root", photos, "--run.device", "cpu"],
    }[kind]


KINDS = ("pretrained", "weights", "teacher's", "teacher", "eval")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("server", ["refusing", "silent"])
def test_weights_of_timm_that_cannot_be_had_are_one_line_within_seconds(
    kdaug: Callable, imagenet_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, server: str
) -> None:
    with silent_server() if server == "silent" else nullcontext(refusing_address()) as address:
        use_hub(monkeypatch, tmp_path / "cache", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 2)
        started = time.monotonic()
        result = kdaug(*command(kind, imagenet_shapes, tmp_path / "run"))
        assert time.monotonic() - started < SECONDS
    assert result.code == 2
    assert_one_line(
        result.err,
        f"timm's weights test_resnet.r160_in1k are not in the cache {tmp_path}/cache and cannot be downloaded from ",
        f"download {address}/timm/test_resnet.r160_in1k/resolve/main/model.safetensors elsewhere and use file:PATH in "
        "--student.weights or --teacher.source, or set HF_HOME",
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_cached_weights_of_timm_need_no_network(
    kdaug: Callable, imagenet_shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fill_cache(tmp_path / "cache", "test_resnet.r160_in1k", published_weights("test_resnet"))
    with hub_with({}) as (address, requests):
        use_hub(monkeypatch, tmp_path / "cache", address)
        result = kdaug(*command(kind, imagenet_shapes, tmp_path / "run"))
    assert result.code == 0, result.err
    assert requests == []
    if kind in ("pretrained", "weights", "teacher's"):
        assert "initial weights: 90 of 92 tensors from timm:test_resnet; new classifier for 3 classes" in result.out
        assert "normalization: timm's for test_resnet; trained at 160x160 pixels" in result.out


def test_the_variables_of_the_hub_are_respected(imagenet_shapes: Path, tmp_path: Path) -> None:
    """In a process of its own, without any replaced function: no library prints anything."""
    address = refusing_address()
    environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "home")}
    with running_command(*command("pretrained", imagenet_shapes, tmp_path / "run"), **environment) as process:
        result = process.end()
    assert result.code == 2
    assert_one_line(result.err, f"not in the cache {tmp_path}/home/hub and cannot be downloaded from {address}: ")
    assert result.out == "measuring training steps\n"


@pytest.mark.parametrize(
    ("flags", "fragments"),
    [
        (
            "--student.arguments img_size=abc",
            ("network test_vit cannot be created with arguments img_size=abc: ", "check --student.arguments"),
        ),
        ("--student.arguments img_sise=64", ("network test_vit has no argument img_sise; check --student.arguments",)),
        ("--student.arguments depth=3.5 img_size=32", ("cannot be created with arguments depth=3.5 img_size=32",)),
        (
            "--student.name wide_resnet10_1 --teacher.source train --teacher.network test_vit "
            "--teacher.arguments img_size=abc",
            ("network test_vit cannot be created with arguments img_size=abc", "and --teacher.arguments"),
        ),
        (
            "--student.name wide_resnet10_1 --teacher.source timm:test_vit --teacher.arguments imgsize=3",
            ("network test_vit has no argument imgsize",),
        ),
        ("--student.pretrained --student.weights timm:test_vit", ("--student.pretrained", "are both set")),
        (
            "--student.weights test_vit",
            ("student.weights is 'test_vit', but must be run:DIR, file:PATH or timm:NAME",),
        ),
        ("--student.weights timm:test_vitt", ("no network 'test_vitt' in timm; did you mean test_vit",)),
    ],
)
def test_weights_and_arguments_that_cannot_work_are_one_line(
    kdaug: Callable,
    imagenet_shapes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: str,
    fragments: tuple[str, ...],
) -> None:
    fill_cache(tmp_path / "cache", "test_vit.r160_in1k", published_weights("test_vit"))
    use_hub(monkeypatch, tmp_path / "cache", refusing_address())
    arguments = ("--data.root", imagenet_shapes, "--run.dir", tmp_path / "run", "--student.name", "test_vit")
    result = kdaug("train", "photos", *PHOTOS_FLAGS, *ALONE, *arguments, *flags.split())
    assert result.code == 2
    assert_one_line(result.err, *fragments)
    assert not (tmp_path / "run").exists()
