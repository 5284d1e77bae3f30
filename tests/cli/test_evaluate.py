"""kdaug eval: the scores that the run ended with, from its weights alone."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from support.commands import CommandResult, assert_one_line
from torch import Tensor, nn
from torch.nn import functional

from kdaug import load
from kdaug.config import read_recipe, to_yaml
from kdaug.supervision import teacher

CPU = ("--run.device", "cpu")
METRICS = ("top1_error", "top5_error", "val_loss", "images", "balanced_error")


def scores_of(result: CommandResult) -> dict:
    """The scores of `kdaug eval --json`."""
    content = json.loads(result.out)
    return {name: content[name] for name in METRICS}


def evaluations(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in METRICS} for line in lines if line["kind"] == "eval"]


@pytest.mark.parametrize("run", ["demo_run", "photos_run"])
def test_last_weights_have_the_final_error(kdaug: Callable, run: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(run)
    before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}
    result = kdaug("eval", directory, "--json", *CPU)
    assert result.code == 0
    assert re.fullmatch(r"evaluating on [\d,]+ images.*: .*\n", result.err)
    assert scores_of(result) == evaluations(directory)[-1]
    assert {p: p.stat().st_mtime_ns for p in directory.rglob("*")} == before, "evaluation writes nothing"


def test_best_weights_have_the_lowest_error(kdaug: Callable, demo_run: Path) -> None:
    result = kdaug("eval", demo_run, "--weights", "best", "--json", *CPU)
    assert scores_of(result) == min(evaluations(demo_run), key=lambda metrics: metrics["top1_error"])


def test_the_chosen_weights_are_evaluated(kdaug: Callable, demo_run: Path, tmp_path: Path) -> None:
    run, (teacher,) = shutil.copytree(demo_run, tmp_path / "run"), (demo_run.parent / "teachers").iterdir()
    shutil.copy(teacher / "last.safetensors", run / "best.safetensors")
    for weights, directory in (("last", demo_run), ("best", teacher)):
        result = kdaug("eval", run, "--weights", weights, "--json", *CPU)
        assert scores_of(result) == evaluations(directory)[-1]


def test_the_result_is_one_line(kdaug: Callable, demo_run: Path) -> None:
    metrics = evaluations(demo_run)[-1]
    assert kdaug("eval", demo_run, *CPU).out == (
        f"{demo_run} (last weights): error {metrics['top1_error']:.2f} % (top-5 {metrics['top5_error']:.2f} %), "
        f"loss {metrics['val_loss']:.4f}, on 2,000 images\n"
    )


def test_predictions_of_all_images_as_csv(kdaug: Callable, photos_run: Path, tmp_path: Path) -> None:
    result = kdaug("eval", photos_run, "--csv", tmp_path / "p.csv", *CPU)
    assert f"predictions written to {tmp_path}/p.csv" in result.out
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    wrong = sum(row["label"] != row["predicted"] for row in rows)
    metrics = evaluations(photos_run)[-1]
    assert (len(rows), 100 * wrong / len(rows)) == (metrics["images"], pytest.approx(metrics["top1_error"]))
    predicted = load(photos_run, device="cpu").predict([row["path"] for row in rows], top=1)
    assert [row["predicted"] for row in rows] == [top[0][0] for top in predicted]
    assert [float(row["probability"]) for row in rows] == pytest.approx([top[0][1] for top in predicted])
    assert all(Path(row["path"]).parent.name == row["label"] for row in rows)


def test_a_run_and_its_images_may_have_moved(kdaug: Callable, photos_run: Path, shapes_copy: Path) -> None:
    run = shutil.copytree(photos_run, shapes_copy.with_name("moved"))
    result = kdaug("eval", run, "--data.root", shapes_copy, "--json", *CPU)
    assert scores_of(result) == evaluations(photos_run)[-1]


def test_the_policy_file_is_not_needed(kdaug: Callable, demo_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(demo_run, tmp_path / "run")
    recipe = read_recipe(run / "recipe.yaml")
    views = replace(recipe.views, policy="file:gone.yaml#0123456789")
    (run / "recipe.yaml").write_text(to_yaml(replace(recipe, views=views)))
    assert scores_of(kdaug("eval", run, "--json", *CPU)) == evaluations(demo_run)[-1]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda run: shutil.rmtree(run), "is not a run directory: it has no recipe.yaml"),
        (lambda run: (run / "last.safetensors").unlink(), "has no last.safetensors yet; finish the run: kdaug train"),
        (lambda run: (run / "last.safetensors").write_text("x"), "last.safetensors is not a weight file"),
        (lambda run: (run / "recipe.yaml").write_text("vieews: {}"), "vieews is not a setting; did you mean views?"),
    ],
    ids=["no run", "unfinished", "damaged weights", "misspelt recipe"],
)
def test_a_run_that_cannot_be_evaluated_is_one_line(
    kdaug: Callable, demo_run: Path, tmp_path: Path, damage: Callable[[Path], None], problem: str
) -> None:
    run = shutil.copytree(demo_run, tmp_path / "run")
    damage(run)
    result = kdaug("eval", run, *CPU)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith("kdaug: ")
    assert problem in result.err
    assert result.err.count("\n") == 1


def test_images_of_other_classes_are_refused(kdaug: Callable, photos_run: Path, shapes_copy: Path) -> None:
    (shapes_copy / "disc").rename(shapes_copy / "ring")
    result = kdaug("eval", photos_run, "--data.root", shapes_copy, *CPU)
    assert result.code == 2
    note, line = result.err.splitlines()
    assert note.startswith("note: the images differ from those")
    assert line.startswith("kdaug: ")
    assert "was trained on 3 classes that are not those of" in line


@pytest.fixture
def imagenet_folder(tmp_path: Path) -> Path:
    """A folder in ImageNet's layout: 1,000 classes, one image of each; its red value is 20 n modulo 256."""
    for number in range(1000):
        for split in ("train", "val"):
            folder = tmp_path / "imagenet" / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            Image.new("RGB", (20, 16), (number * 20 % 256, 0, 0)).save(folder / "1.png")
    return tmp_path / "imagenet"


def test_timm_weights_are_evaluated_at_their_image_size(
    kdaug: Callable, imagenet_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    class AlwaysClassSeven(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            sizes.append(tuple(x.shape[1:]))
            return functional.one_hot(torch.full((len(x),), 7), 1000).float()

    def create(name: str, classes: int, channels: int, pretrained: bool, **_: object) -> nn.Module:
        assert (name, classes, channels, pretrained) == ("test_efficientnet.r160_in1k", 1000, 3, True)
        return AlwaysClassSeven()

    monkeypatch.setattr(teacher, "create_network", create)
    result = kdaug("eval", "timm:test_efficientnet.r160_in1k", "--data.root", imagenet_folder, "--json", *CPU)
    assert result.code == 0, result.err
    result = json.loads(result.out)
    assert (result["images"], result["top1_error"]) == (1000, 99.9)
    assert set(sizes) == {(3, 160, 160)}


@pytest.mark.parametrize(
    ("source", "flags", "problem"),
    [
        ("timm:resnet18.tv_in1k", [], "the images to evaluate on are missing; set --data.root"),
        ("timm:resnet5O", ["--data.root", "{}"], "there is no network 'resnet5O' in timm; did you mean resnet50"),
        ("timm:resnet18.tv_in1k", ["--data.root", "{}"], "has 1000 classes, but the data have 3"),
    ],
)
def test_timm_weights_that_do_not_fit_are_refused(
    kdaug: Callable, shapes_copy: Path, source: str, flags: list[str], problem: str
) -> None:
    result = kdaug("eval", source, *(flag.format(shapes_copy) for flag in flags), *CPU)
    assert result.code == 2
    assert problem in result.err
    assert result.err.count("\n") == 1


def test_json_has_the_error_of_each_class(kdaug: Callable, photos_run: Path) -> None:
    content = json.loads(kdaug("eval", photos_run, "--json", *CPU).out)
    assert set(content) == {*METRICS, "top1_error_interval", "calibration_error", "classes"}
    assert [each["class"] for each in content["classes"]] == ["cross", "disc", "square"]
    wrong = sum(each["images"] * each["top1_error"] / 100 for each in content["classes"])
    assert sum(each["images"] for each in content["classes"]) == content["images"]
    assert 100 * wrong / content["images"] == pytest.approx(content["top1_error"])
    low, high = content["top1_error_interval"]
    assert 0 <= low <= content["top1_error"] <= high <= 100
    assert 0 <= content["calibration_error"] <= 100


@pytest.mark.parametrize("weights", ["last", "best"])
def test_a_page_is_written_into_the_run_directory(
    kdaug: Callable, photos_run: Path, tmp_path: Path, weights: str
) -> None:
    run = shutil.copytree(photos_run, tmp_path / "run")
    result = kdaug("eval", run, "--weights", weights, "--page", *CPU)
    assert result.code == 0
    assert result.out.splitlines()[-1] == f"page written to {run}/evaluation.html"
    text = (run / "evaluation.html").read_text(encoding="utf-8")
    line = result.out.splitlines()[0]
    error = re.search(r"error ([\d.]+) %", line)
    assert error is not None
    assert f"<h1>{run} ({weights} weights): error {error[1]} % [" in text
    assert not re.search(r"""(src|href)=["'](?!data:|https://arxiv\.org)""", text), "the page needs no other file"


def test_the_page_may_be_another_file(kdaug: Callable, demo_run: Path, tmp_path: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in demo_run.rglob("*")}
    result = kdaug("eval", demo_run, "--page", tmp_path / "x.html", "--json", *CPU)
    assert result.code == 0
    assert scores_of(result) == evaluations(demo_run)[-1]
    assert result.err.splitlines()[-1] == f"page written to {tmp_path}/x.html"
    assert "<h2>Reliability</h2>" in (tmp_path / "x.html").read_text(encoding="utf-8")
    assert {p: p.stat().st_mtime_ns for p in demo_run.rglob("*")} == before


def test_a_page_that_cannot_be_written_is_refused_at_once(kdaug: Callable, demo_run: Path, tmp_path: Path) -> None:
    result = kdaug("eval", demo_run, "--page", tmp_path / "nothing" / "x.html", *CPU)
    assert (result.code, result.out) == (2, "")
    assert_one_line(result.err, f"--page {tmp_path}/nothing/x.html is not a file in an existing folder")
