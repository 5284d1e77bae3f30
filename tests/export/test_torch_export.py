"""The .pt2 file: torch alone loads it and computes the logits of the run for any batch size."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from support.exports import damaged_input

from kdaug import InputError
from kdaug.export import torch_export
from kdaug.export.graph import GraphInput, trace
from kdaug.export.reference import Reference, make_reference
from kdaug.export.source import ExportSource, load_source
from kdaug.export.torch_export import METADATA_FILE, export_torch

PROGRAM = """
import json, sys
import numpy as np
sys.modules["kdaug"] = sys.modules["timm"] = None  # importing them is an error
import torch
for name in ("False", "True"):
    extra, pixels = {"kdaug.json": ""}, np.load("pixels.npy")
    network = torch.export.load(f"{name}.pt2", extra_files=extra).module()
    metadata = json.loads(extra["kdaug.json"])
    if metadata["input"]["layout"] == "NCHW":
        mean, std = (np.array(metadata[key], np.float32) for key in ("mean", "std"))
        pixels = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    for count in (1, 2, 5, len(pixels)):
        np.save(f"{name}-{count}.npy", network(torch.from_numpy(np.ascontiguousarray(pixels[:count]))).numpy())
"""


def test_torch_alone_computes_the_logits_of_the_run(source: ExportSource, reference: Reference, tmp_path: Path) -> None:
    """With its own normalization in NumPy, in a process that cannot import kdaug or timm."""
    for inside in (False, True):
        result = export_torch(GraphInput(source, inside), reference, tmp_path / f"{inside}.pt2")
        assert result.max_logit_difference <= result.tolerance
        assert result.runtime == f"torch {torch.__version__}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["False.pt2", "True.pt2"]
    np.save(tmp_path / "pixels.npy", reference.images)
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, check=True)
    for inside, count in product((False, True), (1, 2, 5, 12)):
        logits = np.load(tmp_path / f"{inside}-{count}.npy")
        np.testing.assert_allclose(logits, reference.logits[:count], atol=1e-4)


def test_the_metadata_says_how_to_use_the_file(gray_run: Path, tmp_path: Path) -> None:
    source = load_source(gray_run, "last")
    result = export_torch(GraphInput(source, True), make_reference(source, None), tmp_path / "a.pt2")
    extra = {METADATA_FILE: ""}
    torch.export.load(tmp_path / "a.pt2", extra_files=extra)
    metadata = json.loads(extra[METADATA_FILE])
    assert metadata["classes"][:2] == ["T-shirt/top", "Trouser"]
    assert metadata["mean"] == list(source.info.mean)
    assert metadata["input"] == {
        "name": "images", "dtype": "uint8", "layout": "NHWC", "shape": ["batch", 28, 28, 1], "values": "0..255",
    }  # fmt: skip
    assert (metadata["size"], metadata["channels"], metadata["crop_fraction"]) == ([28, 28], "gray", 1.0)
    assert metadata["check"]["max_logit_difference"] == result.max_logit_difference


def test_the_file_names_no_path_of_this_machine(source: ExportSource, reference: Reference, tmp_path: Path) -> None:
    export_torch(GraphInput(source, True), reference, tmp_path / "a.pt2")
    content = (tmp_path / "a.pt2").read_bytes()
    for path in (torch.__file__, torch_export.__file__, str(source.path)):
        assert str(Path(path).parent).encode() not in content


def test_a_graph_that_differs_from_the_run_is_refused(
    source: ExportSource, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_export, "trace", lambda graph_input, kind: trace(damaged_input(graph_input), kind))
    with pytest.raises(InputError, match="does not agree with the run"):
        export_torch(GraphInput(source, False), reference, tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []
