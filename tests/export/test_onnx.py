"""The ONNX file: ONNX Runtime computes the logits of the run for any batch size."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.exports import damaged_input, needs_onnx

from kdaug import InputError
from kdaug.export import Comparison
from kdaug.export import onnx as module
from kdaug.export.graph import GraphInput, trace
from kdaug.export.onnx import check_packages, export_onnx
from kdaug.export.reference import Reference, make_reference
from kdaug.export.source import ExportSource, load_source


def open_session(path: Path) -> Any:
    return pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])


def metadata_of(session: Any) -> dict[str, Any]:
    return json.loads(session.get_modelmeta().custom_metadata_map["kdaug"])


@pytest.fixture(scope="module")
def files(photo_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Path, Comparison]]:
    """The network of `photo_run` without and with preprocessing, and the results of its comparison."""
    source, folder = load_source(photo_run, "last"), tmp_path_factory.mktemp("onnx")
    reference = make_reference(source, None)
    paths = {inside: folder / f"{inside}.onnx" for inside in (False, True)}
    return {inside: (path, export_onnx(GraphInput(source, inside), reference, path)) for inside, path in paths.items()}


@needs_onnx
@pytest.mark.parametrize("inside", [False, True])
def test_onnx_runtime_computes_the_logits_of_the_run(
    files: dict[bool, tuple[Path, Comparison]], reference: Reference, inside: bool
) -> None:
    """With its own normalization in NumPy, from the metadata alone."""
    path, result = files[inside]
    assert result.max_logit_difference <= result.tolerance
    assert result.runtime.startswith("ONNX Runtime 1.")
    session, pixels = open_session(path), reference.images.numpy()
    metadata = metadata_of(session)
    if not inside:
        mean, std = (np.array(metadata[name], np.float32) for name in ("mean", "std"))
        pixels = ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    for count in (1, 2, 5, 12):
        (logits,) = session.run(["logits"], {"images": pixels[:count]})
        np.testing.assert_allclose(logits, reference.logits[:count], atol=1e-4)


@needs_onnx
@pytest.mark.parametrize(
    ("inside", "kind", "shape", "layout"),
    [(True, "tensor(uint8)", [32, 32, 3], "NHWC"), (False, "tensor(float)", [3, 32, 32], "NCHW")],
)
def test_the_metadata_describes_input_classes_and_check(
    files: dict[bool, tuple[Path, Comparison]], inside: bool, kind: str, shape: list[int], layout: str
) -> None:
    path, result = files[inside]
    session = open_session(path)
    (tensor,), (output,) = session.get_inputs(), session.get_outputs()
    assert (tensor.name, tensor.type, tensor.shape) == ("images", kind, ["batch", *shape])
    assert (output.name, output.type, output.shape) == ("logits", "tensor(float)", ["batch", 3])
    metadata = metadata_of(session)
    assert metadata["classes"] == ["cross", "disc", "square"]
    assert (metadata["network"], metadata["kdaug"]) == ("wide_resnet10_1", version("kdaug"))
    assert (metadata["size"], metadata["channels"], metadata["crop_fraction"]) == ([32, 32], "RGB", 0.875)
    assert (metadata["input"]["layout"], metadata["input"]["shape"]) == (layout, ["batch", *shape])
    assert metadata["check"] == {**vars(result), "batch_sizes": [1, 2, 12]}


def assert_valid_and_plain(path: Path) -> None:
    """Fails unless ONNX's checker accepts the graph, and it has no gathers and no paths of this machine."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert {"Gather", "Range"}.isdisjoint(node.op_type for node in model.graph.node)
    for file in (torch.__file__, module.__file__, str(path)):
        assert str(Path(file).parent).encode() not in path.read_bytes()


@needs_onnx
@pytest.mark.parametrize("inside", [False, True])
def test_the_graph_of_photos_is_valid_and_plain(files: dict[bool, tuple[Path, Comparison]], inside: bool) -> None:
    assert_valid_and_plain(files[inside][0])


@needs_onnx
def test_the_graph_of_gray_images_is_valid_and_plain(gray_run: Path, tmp_path: Path) -> None:
    source = load_source(gray_run, "last")
    export_onnx(GraphInput(source, True), make_reference(source, None), tmp_path / "a.onnx")
    assert_valid_and_plain(tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.onnx"]


@needs_onnx
def test_a_vision_transformer_of_timm_is_exported(vit_file: Path, photos: Path, tmp_path: Path) -> None:
    source = load_source(vit_file, "last")
    reference = make_reference(source, photos)
    result = export_onnx(GraphInput(source, True), reference, tmp_path / "a.onnx")
    assert result.same_class == result.images == 36
    assert metadata_of(open_session(tmp_path / "a.onnx"))["classes"] == ["cat", "dög", "`x`"]


@needs_onnx
def test_a_graph_that_differs_from_the_run_is_refused(
    source: ExportSource, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "trace", lambda graph_input, kind: trace(damaged_input(graph_input), kind))
    with pytest.raises(InputError, match="does not agree with the run"):
        export_onnx(GraphInput(source, False), reference, tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_an_operator_that_onnx_lacks_is_one_line(
    source: ExportSource, reference: Reference, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    class Special(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i1(x).mean((2, 3))

    with pytest.raises(InputError, match=r"network wide_resnet10_1 cannot be exported to ONNX: .*i1") as error:
        export_onnx(GraphInput(replace(source, network=Special()), False), reference, tmp_path / "a.onnx")
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


@needs_onnx
def test_a_file_that_onnx_runtime_cannot_load_is_one_line(source: ExportSource) -> None:
    with pytest.raises(InputError, match="network wide_resnet10_1 cannot be exported to ONNX: ") as error:
        module._session(b"damaged", GraphInput(source, False))
    assert "\n" not in str(error.value)


def test_a_network_too_large_for_one_file_is_refused(
    source: ExportSource, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LARGEST_FILE", 1000)
    with pytest.raises(InputError, match="but an ONNX file at most 2 GiB; export with --to torch-export"):
        export_onnx(GraphInput(source, False), reference, tmp_path / "a.onnx")


def test_missing_packages_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "onnxscript" else importlib.util)
    with pytest.raises(InputError, match=r"needs the package\(s\) onnxscript; pip install 'kdaug\[onnx\]'"):
        check_packages()
