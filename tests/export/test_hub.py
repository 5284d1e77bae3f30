"""The folder for the hub: its model card, and its upload to a hub on this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
import yaml
from PIL import Image
from support.exports import damaged
from support.fake_hub import FakeHub, fake_hub

from kdaug import InputError
from kdaug.config import Data, Recipe, Run, Teacher, Views, from_yaml, read_recipe, to_yaml, with_settings
from kdaug.export import check_push, hub, push_to_hub, timm_folder
from kdaug.export.card import shareable
from kdaug.export.hub import export_hub
from kdaug.export.reference import make_reference
from kdaug.export.source import load_source
from kdaug.export.summary import describe_training
from kdaug.networks import save_weights
from kdaug.runs import read_metrics


@pytest.fixture(scope="module")
def folder(photo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported folder of `photo_run`; read only."""
    source, path = load_source(photo_run, "best"), tmp_path_factory.mktemp("hub") / "shapes"
    export_hub(source, make_reference(source, None), path, None)
    return path


def card_of(folder: Path) -> tuple[dict[str, Any], str]:
    """The header and the text of a model card."""
    _, header, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(header), text


def test_the_folder_is_complete(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert list(folder.parent.iterdir()) == [folder]


def test_the_header_has_a_license_line_to_fill_in(folder: Path) -> None:
    header, _ = card_of(folder)
    assert header == {
        "license": "unknown", "library_name": "timm", "pipeline_tag": "image-classification",
        "tags": ["image-classification", "timm", "kdaug", "knowledge-distillation"],
    }  # fmt: skip
    assert re.search(r"^license: unknown  # FILL IN: ", (folder / "README.md").read_text(), re.M)


def test_the_example_of_the_card_runs(
    folder: Path, photos: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    _, text = card_of(folder)
    example, kdaug_example = re.findall(r"```python\n(.*?)```", text, re.S)
    assert "import kdaug.networks" in example
    Image.open(next((photos / "disc").iterdir())).save(tmp_path / "photo.jpg")
    shutil.copy(folder / "model.safetensors", tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(example.replace("hf-hub:OWNER/NAME", f"local-dir:{folder}"), {})
    name, probability = capsys.readouterr().out.split()
    assert name in ("cross", "disc", "square")
    assert 1 / 3 < float(probability) <= 1
    exec(kdaug_example.replace("FOLDER", str(folder)), {})
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert sorted(name for name, _ in printed) == ["cross", "disc", "square"]
    assert sum(float(value) for _, value in printed) == pytest.approx(1)


def test_the_card_has_the_figures_of_the_run(folder: Path, photo_run: Path) -> None:
    _, text = card_of(folder)
    best = min(
        (line for line in read_metrics(photo_run) if line["kind"] == "eval"), key=lambda line: line["top1_error"]
    )
    (teacher,) = (photo_run.parent / "teachers").iterdir()
    for part in (
        "`cross`, `disc`, `square`",
        f"{best['top1_error']:.2f} % on 12 validation images (30 % of each class held out of training "
        "(data.val_fraction)) at 32x32 pixels. These weights are the ones with the lowest error",
        "| training images | 24, 8 per class |",
        "| validation images | 12 (30 % of each class",
        "| dataset | folder `shapes` |",
        "| start | random weights |",
        "| optimization | 6 epoch(s) in batches of 8, sgd with learning rate 0.1 (cosine)",
        "| loss | 1 x cross-entropy + 1 x divergence from the teacher (top-k, k 5, temperature 2) |",
        "Teacher: `wide_resnet10_1`, trained first on the same images for 6 epoch(s) with policy `none`",
        f"Its error on the same validation images is {read_metrics(teacher)[-1]['top1_error']:.2f} %.",
        "compared with the original on 12 of the 12 validation images of the run",
        "The class is the same for 12 of 12 images.",
    ):
        assert part in text
    assert str(photo_run.parent) not in text


@pytest.mark.parametrize(("weights", "error"), [("best", "1.25 %"), ("last", "77.50 %")])
def test_the_error_is_that_of_the_exported_weights(photo_run: Path, tmp_path: Path, weights: str, error: str) -> None:
    run = shutil.copytree(photo_run, tmp_path / "run")
    lines = read_metrics(run)
    first, *_, last = (line for line in lines if line["kind"] == "eval")
    first["top1_error"], last["top1_error"] = 1.25, 77.5
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = load_source(run, weights)
    export_hub(source, make_reference(source, None), tmp_path / "out", None)
    _, text = card_of(tmp_path / "out")
    assert f"## Error\n\n{error}" in text
    assert ("the true error is probably higher" in text) == (weights == "best")


def test_the_recipe_of_the_card_trains_the_same_without_paths_of_this_machine(folder: Path, photo_run: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", card_of(folder)[1], re.S)
    recipe = from_yaml(text)
    assert (recipe.run.dir, recipe.data.root) == (None, "shapes")
    original = read_recipe(photo_run / "recipe.yaml")
    changed = {"run.dir": original.run.dir, "data.root": original.data.root}
    assert to_yaml(with_settings(recipe, changed, "")) == to_yaml(original)


def test_the_card_shows_no_folder_of_several_teachers() -> None:
    recipe = with_settings(Recipe(), {"teacher.source": "run:/home/me/a,run:relative/b,file:/home/me/c.pth"}, "")
    assert shareable(recipe).teacher.source == "run:a,run:relative/b,file:c.pth"


def test_absolute_paths_are_shortened_and_others_kept() -> None:
    recipe = Recipe(
        data=Data("hub", root="owner/name"),
        views=Views(policy="file:/home/me/policy.yaml#0123456789"),
        teacher=Teacher("run:/home/me/runs/teacher", labels="/home/me/labels"),
        run=Run("/home/me/runs/a"),
    )
    shared = shareable(recipe)
    assert "/home" not in to_yaml(shared)
    assert (shared.data.root, shared.run.dir) == ("owner/name", None)
    assert shared.views.policy == "file:policy.yaml#0123456789"
    assert (shared.teacher.source, shared.teacher.labels) == ("run:teacher", "labels")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"teacher.source": "none"}, "Teacher: Trained without a teacher."),
        ({"teacher.source": "run:/home/me/big"}, "Teacher: The network of the run `big`, on the same views."),
        (
            {"teacher.source": "run:/home/me/a,file:/home/me/b.pth"},
            "Teacher: The network of the run `a` and the network of the file `b.pth`, averaged, on the same views.",
        ),
        ({"teacher.source": "file:big.pth"}, "Teacher: The network of the file `big.pth`, on the same views."),
        ({"teacher.source": "timm:resnet50.a1_in1k"}, "Teacher: timm's `resnet50.a1_in1k`, on the same views."),
        ({"teacher.labels": "/home/me/labels"}, "Teacher: Soft labels stored in `labels` by `kdaug label`."),
    ],
)
def test_every_kind_of_teacher_is_named(
    photo_run: Path, tmp_path: Path, settings: dict[str, Any], sentence: str
) -> None:
    run = shutil.copytree(photo_run, tmp_path / "run")
    recipe = read_recipe(run / "recipe.yaml")
    (run / "recipe.yaml").write_text(to_yaml(with_settings(recipe, settings, "")))
    source = load_source(run, "last")
    export_hub(source, make_reference(source, None), tmp_path / "out", None)
    header, text = card_of(tmp_path / "out")
    assert sentence in text
    assert ("knowledge-distillation" in header["tags"]) == (settings != {"teacher.source": "none"})


def test_training_in_words() -> None:
    recipe = with_settings(
        Recipe(),
        {
            "student.pretrained": True, "optimization.clean_epochs": 5, "optimization.ema_decay": 0.99,
            "views.cutout": 16, "views.mixup": 0.2, "supervision.label_smoothing": 0.1, "run.seed": 3,
        },
        "",
    )  # fmt: skip
    assert describe_training(recipe) == {
        "start": "timm's published weights `wide_resnet16_1`",
        "optimization": "200 epoch(s) and 5 without the policy in batches of 128, sgd with learning rate 0.1 (cosine), "
        "weight decay 0.0005, average of the weights (EMA) with decay 0.99",
        "views": "policy `none`, crop pad, horizontal flip, cutout of 16 pixels, mixup with alpha 0.2",
        "loss": "cross-entropy with label smoothing 0.1",
        "seed": "3",
    }


@pytest.mark.parametrize(
    ("weights", "start"),
    [
        (None, "random weights"),
        ("timm:resnet18.a1_in1k", "timm's published weights `resnet18.a1_in1k`"),
        ("file:/home/me/w.pth#0123456789", "the weights of the file `w.pth`"),
        ("run:/home/me/runs/a#0123456789", "the weights of the run `a`"),
    ],
)
def test_initial_weights_in_words(weights: str | None, start: str) -> None:
    assert describe_training(with_settings(Recipe(), {"student.weights": weights}, ""))["start"] == start


def test_images_that_changed_since_training_are_not_counted(photo_run: Path, photos: Path, tmp_path: Path) -> None:
    run, moved = shutil.copytree(photo_run, tmp_path / "run"), shutil.copytree(photos, tmp_path / "moved")
    (moved / "disc" / "00.jpg").unlink()
    recipe = with_settings(read_recipe(run / "recipe.yaml"), {"data.root": str(moved)}, "")
    (run / "recipe.yaml").write_text(to_yaml(recipe))
    source = load_source(run, "last")
    export_hub(source, make_reference(source, None), tmp_path / "out", None)
    _, text = card_of(tmp_path / "out")
    assert "| training images | not known: the images of the run could not be read for this card |" in text
    assert "on the validation images at 32x32 pixels." in text


def test_a_weight_file_has_a_card_to_fill_in(vit_file: Path, photos: Path, tmp_path: Path) -> None:
    source = load_source(vit_file, "last")
    export_hub(source, make_reference(source, photos), tmp_path / "out", "me/cats")
    _, text = card_of(tmp_path / "out")
    assert text.startswith("\n# cats\n")
    assert "FILL IN: the network was exported from a weight file" in text
    assert 'timm.create_model("hf-hub:me/cats"' in text
    assert "`cat`, `dög`, `` `x` ``" in text
    assert "import kdaug.networks" not in text
    assert "compared with the original on 36 of the 36 images in folder shapes" in text


def test_a_refused_export_leaves_nothing_behind(photo_run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    source = load_source(photo_run, "last")
    state = damaged(source).network.state_dict()
    monkeypatch.setattr(timm_folder, "save_weights", lambda _, info, path: save_weights(state, info, path))
    with pytest.raises(InputError, match="does not agree with the run"):
        export_hub(source, make_reference(source, None), tmp_path / "out", None)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine that this process uses, with the user's token."""
    with fake_hub() as server:
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", server.token)
        yield server


def test_the_folder_is_uploaded_to_a_new_private_repository(folder: Path, local_hub: FakeHub) -> None:
    assert push_to_hub(folder, "me/shapes") == f"{local_hub.url}/me/shapes"
    assert local_hub.files == {"me/shapes": {path.name: path.read_bytes() for path in folder.iterdir()}}
    assert local_hub.private == {"me/shapes": True}
    assert local_hub.messages == ["Export from kdaug"]
    assert set(local_hub.cards) == {(folder / "README.md").read_text()}, "the hub has checked the header"


def test_an_existing_repository_keeps_its_visibility(folder: Path, local_hub: FakeHub) -> None:
    local_hub.private["me/shapes"] = False
    push_to_hub(folder, "me/shapes")
    assert local_hub.private == {"me/shapes": False}
    assert len(local_hub.files["me/shapes"]) == 3


def test_timm_loads_the_uploaded_network(
    folder: Path, photo_run: Path, photos: Path, local_hub: FakeHub, tmp_path: Path
) -> None:
    push_to_hub(folder, "me/shapes")
    network = timm.create_model("hf-hub:me/shapes", pretrained=True, cache_dir=tmp_path).eval()
    source = load_source(photo_run, "best")
    reference = make_reference(source, photos)
    with torch.no_grad():
        logits = network(source.info.input_format.normalize(reference.images))
    torch.testing.assert_close(logits, reference.logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("problem", ["forbidden", "wrong token", "unreachable"])
def test_a_failed_upload_is_one_line_and_keeps_the_folder(
    folder: Path, local_hub: FakeHub, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    if problem == "forbidden":
        local_hub.status = 403
    elif problem == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_other")
    else:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    reasons = {"forbidden": "403", "wrong token": "401", "unreachable": "[Cc]onnect"}
    with pytest.raises(InputError, match=rf"was not uploaded to me/shapes: .*{reasons[problem]}") as error:
        push_to_hub(folder, "me/shapes")
    assert "\n" not in str(error.value)
    assert error.value.hint.endswith(f"hf upload --private me/shapes {folder}")
    assert len(list(folder.iterdir())) == 3
    assert not local_hub.files


def test_a_missing_token_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(
        InputError, match="needs a token of the Hugging Face hub, but there is none; run: hf auth login"
    ):
        check_push("me/shapes")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(hub, "import_module", missing)
    with pytest.raises(InputError, match="--push needs the package huggingface_hub; pip install huggingface_hub"):
        check_push("me/shapes")


@pytest.mark.parametrize("name", ["shapes", "me/shapes/v1", "me/", "me/sha pes", "me/--shapes"])
def test_an_invalid_name_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "x")
    with pytest.raises(InputError, match=r"must be OWNER/NAME|is not a name on the hub") as error:
        check_push(name)
    assert "\n" not in str(error.value)


LOAD = """
import kdaug.networks, sys, timm, torch
network = timm.create_model("hf-hub:me/shapes", pretrained=True).eval()
torch.save(network(torch.load("images.pt")), "logits.pt")
"""


@pytest.mark.slow
def test_command_and_timm_in_other_processes(photo_run: Path, tmp_path: Path) -> None:
    """Only with the environment variables that users have; timm downloads what the command has uploaded."""
    with fake_hub() as server:
        variables = {"HF_ENDPOINT": server.url, "HF_TOKEN": server.token, "HF_HOME": str(tmp_path / "home")}
        environment = {**os.environ, **variables, "HF_HUB_DISABLE_XET": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        command = [sys.executable, "-m", "kdaug", "export", str(photo_run), "--to", "hub", "--out", "out", "--push"]
        done = subprocess.run(
            [*command, "me/shapes"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == f"uploaded to {server.url}/me/shapes"
        source = load_source(photo_run, "last")
        reference = make_reference(source, None)
        torch.save(source.info.input_format.normalize(reference.images), tmp_path / "images.pt")
        subprocess.run([sys.executable, "-c", LOAD], cwd=tmp_path, env=environment, check=True)
    logits = torch.load(tmp_path / "logits.pt")
    np.testing.assert_allclose(logits.detach(), reference.logits, atol=1e-4)
