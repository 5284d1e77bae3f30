"""kdaug eval: the very figures the run ended with, from its weights alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from kdaug.config import read_recipe, to_yaml
from kdaug.supervision import teacher

CPU = ("--run.device", "cpu")
FIGURES = ("top1_error", "top5_error", "val_loss", "images")


def evaluations(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in FIGURES} for line in lines if line["kind"] == "eval"]


@pytest.mark.parametrize("run", ["taught", "photos_run"])
def test_the_last_weights_have_the_error_of_the_end(kdaug: Callable, run: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(run)
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    said = kdaug("eval", directory, "--json", *CPU)
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out) == evaluations(directory)[-1]
    assert {p: p.stat().st_mtime_ns for p in directory.rglob("*")} == before, "measuring leaves no trace"


def test_the_best_weights_have_the_lowest_error(kdaug: Callable, taught: Path) -> None:
    told = json.loads(kdaug("eval", taught, "--weights", "best", "--json", *CPU).out)
    assert told == min(evaluations(taught), key=lambda figures: figures["top1_error"])


def test_the_weights_asked_for_are_the_ones_measured(kdaug: Callable, taught: Path, tmp_path: Path) -> None:
    run, (teacher,) = shutil.copytree(taught, tmp_path / "run"), (taught.parent / "teachers").iterdir()
    shutil.copy(teacher / "last.safetensors", run / "best.safetensors")
    for weights, measured in (("last", taught), ("best", teacher)):
        told = json.loads(kdaug("eval", run, "--weights", weights, "--json", *CPU).out)
        assert told == evaluations(measured)[-1]


def test_in_words_it_is_one_line(kdaug: Callable, taught: Path) -> None:
    figures = evaluations(taught)[-1]
    assert kdaug("eval", taught, *CPU).out == (
        f"{taught} (last weights): error {figures['top1_error']:.2f} %, top-5 {figures['top5_error']:.2f} %, "
        f"loss {figures['val_loss']:.4f}, on 2,000 images\n"
    )


def test_a_run_and_its_images_may_have_moved(kdaug: Callable, photos_run: Path, own_shapes: Path) -> None:
    run = shutil.copytree(photos_run, own_shapes.with_name("moved"))
    said = kdaug("eval", run, "--data.root", own_shapes, "--json", *CPU)
    assert json.loads(said.out) == evaluations(photos_run)[-1]


def test_the_policy_file_of_its_views_may_be_gone(kdaug: Callable, taught: Path, tmp_path: Path) -> None:
    run = shutil.copytree(taught, tmp_path / "run")
    recipe = read_recipe(run / "recipe.yaml")
    views = replace(recipe.views, policy="file:gone.yaml#0123456789")
    (run / "recipe.yaml").write_text(to_yaml(replace(recipe, views=views)))
    assert json.loads(kdaug("eval", run, "--json", *CPU).out) == evaluations(taught)[-1]


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda run: shutil.rmtree(run), "is not a run directory: it holds no recipe.yaml"),
        (lambda run: (run / "last.safetensors").unlink(), "holds no last.safetensors yet; is the run finished?"),
        (lambda run: (run / "last.safetensors").write_text("x"), "last.safetensors is not a weight file"),
        (lambda run: (run / "recipe.yaml").write_text("vieews: {}"), "vieews is not a setting; did you mean views?"),
    ],
    ids=["no run", "unfinished", "damaged weights", "misspelt recipe"],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    kdaug: Callable, taught: Path, tmp_path: Path, spoil: Callable[[Path], None], named: str
) -> None:
    run = shutil.copytree(taught, tmp_path / "run")
    spoil(run)
    said = kdaug("eval", run, *CPU)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("kdaug: ")
    assert named in said.err
    assert said.err.count("\n") == 1


def test_images_of_other_classes_are_refused(kdaug: Callable, photos_run: Path, own_shapes: Path) -> None:
    (own_shapes / "disc").rename(own_shapes / "ring")
    said = kdaug("eval", photos_run, "--data.root", own_shapes, *CPU)
    assert said.code == 2
    note, line = said.err.splitlines()
    assert note.startswith("note: these are not the images")
    assert line.startswith("kdaug: ")
    assert "was trained on 3 classes that are not those of" in line


@pytest.fixture
def thousand(tmp_path: Path) -> Path:
    """A folder in ImageNet's layout: a thousand classes, one image of each; the first ten in colour n x 20."""
    for number in range(1000):
        for split in ("train", "val"):
            folder = tmp_path / "imagenet" / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            Image.new("RGB", (80, 64), (number * 20 % 256, 0, 0)).save(folder / "1.png")
    return tmp_path / "imagenet"


def test_weights_that_timm_publishes_are_measured_on_a_folder_at_their_own_size(
    kdaug: Callable, thousand: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class RightForOneClass(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape[1:]))
            return functional.one_hot(torch.full((len(x),), 7), 1000).float()

    def create(name: str, classes: int, channels: int, pretrained: bool) -> nn.Module:
        assert (name, classes, channels, pretrained) == ("tf_efficientnet_b4.aa_in1k", 1000, 3, True)
        return RightForOneClass()

    monkeypatch.setattr(teacher, "create_network", create)
    said = kdaug("eval", "timm:tf_efficientnet_b4.aa_in1k", "--data.root", thousand, "--json", *CPU)
    assert said.code == 0, said.err
    told = json.loads(said.out)
    assert (told["images"], told["top1_error"]) == (1000, 99.9)
    assert set(sizes) == {(3, 380, 380)}


@pytest.mark.parametrize(
    ("source", "flags", "named"),
    [
        ("timm:resnet18.tv_in1k", [], "on which images? give them with --data.root"),
        ("timm:resnet5O", ["--data.root", "{}"], "there is no network 'resnet5O' in timm; did you mean resnet50"),
        ("timm:resnet18.tv_in1k", ["--data.root", "{}"], "has 1000 classes, but the data have 3"),
    ],
)
def test_published_weights_that_cannot_be_measured_are_refused(
    kdaug: Callable, own_shapes: Path, source: str, flags: list[str], named: str
) -> None:
    said = kdaug("eval", source, *(flag.format(own_shapes) for flag in flags), *CPU)
    assert said.code == 2
    assert named in said.err
    assert said.err.count("\n") == 1
