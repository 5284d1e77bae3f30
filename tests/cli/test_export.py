"""kdaug export: what it writes and prints for each format, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from support.commands import assert_one_line
from support.exports import damaged_input, needs_onnx
from support.runs import folder_content

from kdaug.export import onnx, torch_export
from kdaug.export.graph import trace

COMPARED = (
    r"compared with the run on {images}, in batches of 1, 2, [\d, ]+ \({runtime} [^)]+\): largest difference of logits "
    r"[\d.e-]+ \(allowed: [\d.e-]+\), same class for (\d+) of \1"
)


def assert_compared(line: str, images: str, runtime: str) -> None:
    assert re.fullmatch(COMPARED.format(images=images, runtime=runtime), line), line


@needs_onnx
def test_onnx(kdaug: Callable, demo_run: Path, tmp_path: Path) -> None:
    before = folder_content(demo_run)
    result = kdaug("export", demo_run, "--to", "onnx", "--out", tmp_path / "a.onnx", "--with-preprocessing")
    assert result.code == 0, result.err
    exported, compared = result.out.splitlines()
    assert exported == f"{demo_run} exported to {tmp_path / 'a.onnx'}"
    assert_compared(compared, r"128 of the 2,000 validation images of the run \(its test images\)", "ONNX Runtime")
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "a.onnx"]
    (tensor,) = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "a.onnx").get_inputs()
    assert (tensor.type, tensor.shape) == ("tensor(uint8)", ["batch", 28, 28, 1])
    assert folder_content(demo_run) == before


def test_torch_export_of_photos_that_were_moved(
    kdaug: Callable, photos_run: Path, shapes_copy: Path, tmp_path: Path
) -> None:
    """The run's validation images are gone; others are given."""
    run = shutil.copytree(photos_run, tmp_path / "run")
    recipe = run / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("root: /", "root: /gone/"))
    command = ("export", run, "--to", "torch-export", "--out", tmp_path / "a.pt2")
    refused = kdaug(*command)
    assert refused.code == 2
    assert_one_line(
        refused.err, f"the validation images of {run} cannot be read", "give a folder of images", "--images"
    )
    result = kdaug(*command, "--images", shapes_copy)
    assert result.code == 0, result.err
    assert_compared(result.out.splitlines()[1], "36 of the 36 images in folder shapes", "torch")
    assert torch.export.load(tmp_path / "a.pt2").module()(torch.zeros(4, 3, 32, 32)).shape == (4, 3)


def test_timm_with_the_best_weights(kdaug: Callable, photos_run: Path, tmp_path: Path) -> None:
    result = kdaug("export", photos_run, "--to", "timm", "--out", tmp_path / "a", "--weights", "best")
    assert result.code == 0, result.err
    network = timm.create_model(f"local-dir:{tmp_path / 'a'}", pretrained=True)
    assert network.pretrained_cfg["label_names"] == ["cross", "disc", "square"]
    assert torch.equal(network.state_dict()["fc.weight"], load_file(photos_run / "best.safetensors")["fc.weight"])


def test_hub_from_a_weight_file(kdaug: Callable, photos_run: Path, shapes: Path, tmp_path: Path) -> None:
    file = photos_run / "last.safetensors"
    result = kdaug("export", file, "--to", "hub", "--out", tmp_path / "a", "--images", shapes)
    assert result.code == 0, result.err
    assert result.out.splitlines()[2] == f"fill in the license at the top of {tmp_path / 'a' / 'README.md'}"
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    check = json.loads((tmp_path / "a" / "config.json").read_text())["kdaug"]["check"]
    assert (check["images"], check["same_class"]) == (36, 36)


@pytest.mark.parametrize("kind", [pytest.param("onnx", marks=needs_onnx), "torch-export"])
def test_a_file_that_does_not_agree_is_refused(
    kdaug: Callable, photos_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    module = onnx if kind == "onnx" else torch_export
    monkeypatch.setattr(module, "trace", lambda graph_input, name: trace(damaged_input(graph_input), name))
    result = kdaug("export", photos_run, "--to", kind, "--out", tmp_path / "a")
    assert (result.code, result.out) == (2, "")
    note, line = result.err.splitlines()
    assert note.startswith(f"exporting {photos_run}, to be compared on 3 of the 3 validation images")
    assert line.startswith("kdaug: the exported network does not agree with the run: the largest difference of logits")
    assert line.endswith("nothing was written")
    assert list(tmp_path.iterdir()) == []


CASES = {
    "unknown format": ("{demo_run} --to tflite --out {tmp}/new", "tflite", "--help lists all settings"),
    "no format": ("{demo_run} --out {tmp}/new", "--to"),
    "no path": ("{demo_run} --to timm", "--out"),
    "no run": ("{tmp}/none --to timm --out {tmp}/new", "{tmp}/none does not exist"),
    "not a run": ("{tmp} --to timm --out {tmp}/new", "{tmp} is not a run directory"),
    "unfinished run": ("{tmp}/unfinished --to timm --out {tmp}/new", "/unfinished is not a finished run", "resume"),
    "existing file": ("{demo_run} --to onnx --out {tmp}/file", "{tmp}/file exists; choose another --out"),
    "existing folder": ("{demo_run} --to timm --out {tmp}/empty", "{tmp}/empty exists; choose another --out"),
    "missing parent": ("{demo_run} --to timm --out {tmp}/no/new", "folder {tmp}/no does not exist; create it"),
    "preprocessing for timm": (
        "{demo_run} --to timm --out {tmp}/new --with-preprocessing",
        "--with-preprocessing has no effect with --to timm",
    ),
    "upload of a file": ("{demo_run} --to onnx --out {tmp}/new --push a/b", "--push has no effect with --to onnx"),
    "upload without owner": ("{demo_run} --to hub --out {tmp}/new --push b", "--push is 'b', but must be OWNER/NAME"),
    "upload without token": ("{demo_run} --to hub --out {tmp}/new --push a/b", "needs a token of the Hugging Face hub"),
    "no images": ("{demo_run} --to timm --out {tmp}/new --images {tmp}/empty", "--images {tmp}/empty has no images"),
    "weight file alone": ("{demo_run}/last.safetensors --to timm --out {tmp}/new", "is a weight file", "--images"),
    "network of another program": (
        "{tmp}/other.safetensors --to timm --out {tmp}/new", "does not name its network: it was not written by kdaug",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_and_writes_nothing(
    kdaug: Callable, demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    shutil.copytree(demo_run, tmp_path / "unfinished", ignore=shutil.ignore_patterns("last.safetensors"))
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    command, *fragments = (text.format(tmp=tmp_path, demo_run=demo_run) for text in CASES[case])
    before = folder_content(tmp_path)
    result = kdaug("export", *command.split())
    assert (result.code, result.out) == (2, "")
    assert_one_line(result.err, *fragments)
    assert folder_content(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_missing_extra_is_one_line(
    kdaug: Callable, demo_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: None)
    result = kdaug("export", demo_run, "--to", "onnx", "--out", tmp_path / "a.onnx")
    assert result.code == 2
    assert_one_line(result.err, "export to ONNX needs the package(s) onnx, onnxscript, onnxruntime", "'kdaug[onnx]'")


def test_a_full_disk_leaves_nothing_behind(
    kdaug: Callable, photos_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr("os.fsync", full)
    for kind in ("timm", "torch-export"):
        result = kdaug("export", photos_run, "--to", kind, "--out", tmp_path / "a")
        assert result.code == 2
        assert "the disk is full" in result.err
        assert list(tmp_path.iterdir()) == []


def test_help_names_formats_and_extra(kdaug: Callable) -> None:
    text = " ".join(kdaug("export", "--help").out.split())
    for part in (
        "onnx,torch-export,timm,hub",
        "kdaug[onnx]",
        "uint8 [N,H,W,C]",
        "--push",
        "A new repository is private",
    ):
        assert part.replace(" ", "") in text.replace(" ", "").replace("│", "")
