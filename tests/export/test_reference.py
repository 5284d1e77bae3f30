"""The images that exports are compared on: those of the run or of a folder, as the network gets them."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import write_noise
from torch.nn import functional

from kdaug import InputError
from kdaug.data.crops import CenterCrop
from kdaug.data.datasets import load_bundled
from kdaug.data.decode import decode
from kdaug.export.reference import COMPARED_IMAGES, Reference, make_reference
from kdaug.export.source import ExportSource, load_source
from kdaug.networks import NetworkInfo, create_network, save_weights
from kdaug.runs import read_metrics


def test_images_in_memory_are_used_as_they_are(gray_run: Path) -> None:
    reference, val = make_reference(load_source(gray_run, "last"), None), load_bundled().val
    assert reference.images.shape == (COMPARED_IMAGES, 28, 28, 1)
    rows = [np.flatnonzero((val.images == image.numpy()).all((1, 2, 3)))[0] for image in reference.images]
    assert len(set(rows)) == COMPARED_IMAGES
    per_class = Counter(val.labels[rows].tolist()).values()
    assert (len(per_class), min(per_class), max(per_class)) == (10, 12, 13), "spread over the classes"
    assert reference.description == "128 of the 2,000 validation images of the run (its test images)"


def test_the_logits_are_those_that_the_run_was_evaluated_with(
    photo_run: Path, source: ExportSource, reference: Reference
) -> None:
    """All twelve validation images: their loss and error are the last ones in the metrics."""
    assert reference.dataset is not None
    labels = torch.from_numpy(reference.dataset.val.labels)
    last = read_metrics(photo_run)[-1]
    assert len(reference.images) == len(labels) == last["images"]
    assert functional.cross_entropy(reference.logits, labels).item() == pytest.approx(last["val_loss"], rel=1e-5)
    assert (reference.logits.argmax(1) != labels).float().mean().item() * 100 == pytest.approx(last["top1_error"])
    assert reference.description == (
        "12 of the 12 validation images of the run (30 % of each class held out of training (data.val_fraction))"
    )


def test_a_run_is_exported_at_the_size_it_is_evaluated_at(photo_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(photo_run, tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("evaluate_size: null", "evaluate_size: 40"))
    source = load_source(run, "last")
    assert source.info.size == (40, 40)
    assert make_reference(source, None).images.shape == (12, 40, 40, 3)


def test_folder_images_are_decoded_as_in_evaluation(source: ExportSource, photos: Path) -> None:
    reference = make_reference(source, photos)
    files = sorted(photos.rglob("*.jpg"))
    expected = np.stack([decode(file, CenterCrop(32), 0, 0) for file in files])
    assert np.array_equal(reference.images, expected)
    assert reference.description == "36 of the 36 images in folder shapes"
    assert reference.dataset is None


def test_a_large_folder_is_sampled_from_first_to_last(source: ExportSource, tmp_path: Path) -> None:
    for number in range(200):
        Image.new("RGB", (32, 32), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    reference = make_reference(source, tmp_path)
    values = reference.images[:, 16, 16, 0].tolist()
    assert len(set(values)) == COMPARED_IMAGES
    assert (values[0], values[-1]) == (0, 199)
    assert reference.description == f"128 of the 200 images in folder {tmp_path.name}"


def test_images_become_gray_and_of_the_size_of_the_network(tmp_path: Path) -> None:
    save_weights(
        create_network("wide_resnet10_1", 2, 1).state_dict(),
        NetworkInfo("wide_resnet10_1", ("a", "b"), (0.5,), (0.5,), (24, 32)),
        tmp_path / "w.safetensors",
    )
    write_noise(tmp_path / "images", {"": 3}, (64, 64))
    images = make_reference(load_source(tmp_path / "w.safetensors", "last"), tmp_path / "images").images
    assert images.shape == (3, 24, 32, 1)
    file = sorted((tmp_path / "images").iterdir())[0]
    gray = np.asarray(Image.open(file).convert("L"), np.float64)
    assert images[0].float().mean().item() == pytest.approx(gray[4:-4, 4:-4].mean(), abs=3)


def test_unreadable_images_are_left_out(source: ExportSource, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_noise(tmp_path, {"a": 3})
    (tmp_path / "a" / "001.png").write_text("x")
    reference = make_reference(source, tmp_path)
    assert len(reference.images) == 2
    assert reference.description.startswith("2 of the 3 images")
    assert "001.png" in caplog.text


@pytest.mark.parametrize("problem", ["missing", "empty", "unreadable", "file"])
def test_a_folder_without_images_is_refused(source: ExportSource, tmp_path: Path, problem: str) -> None:
    folder = tmp_path / "x"
    if problem == "file":
        folder.write_text("x")
    elif problem != "missing":
        folder.mkdir()
    if problem == "unreadable":
        (folder / "a.png").write_text("x")
    reasons = {"missing": "is not a folder", "file": "is not a folder", "empty": "has no images"}
    with pytest.raises(InputError, match=reasons.get(problem, "none of the 1 images in folder x can be read")):
        make_reference(source, folder)


def test_moved_validation_images_are_refused_with_the_way_out(photo_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(photo_run, tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("root: /", "root: /moved/"))
    with pytest.raises(
        InputError, match=r"the validation images of .*run cannot be read: image folder /moved.*--images"
    ):
        make_reference(load_source(run, "last"), None)


def test_a_weight_file_needs_images(vit_file: Path) -> None:
    with pytest.raises(InputError, match=r"is a weight file, so there are no validation images.*--images"):
        make_reference(load_source(vit_file, "last"), None)


def test_a_dataset_is_never_downloaded(gray_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(gray_run, tmp_path / "run")
    recipe = run / "recipe.yaml"
    text = recipe.read_text().replace("name: bundled", "name: fashion-mnist").replace("root: data", f"root: {tmp_path}")
    recipe.write_text(text.replace("download: false", "download: true"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", lambda *_, **__: pytest.fail("downloads"))
    with pytest.raises(InputError, match="cannot be read: dataset fashion-mnist is not in"):
        make_reference(load_source(run, "last"), None)


def test_outputs_that_are_not_finite_are_refused(source: ExportSource, photos: Path) -> None:
    with torch.no_grad():
        next(source.network.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match=r"the outputs of .* are not finite"):
        make_reference(source, photos)
