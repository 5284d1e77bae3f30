"""ONNX: one file with weights and metadata, checked in ONNX Runtime. Needs the extra onnx."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdaug.errors import InputError
from kdaug.export.check import Comparison, Metadata, Predict, write_checked_file
from kdaug.export.graph import INPUT, METADATA_KEY, OUTPUT, GraphInput, batch_dimension, explain_failure, quiet, trace
from kdaug.export.reference import Reference

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_LARGEST_FILE = 2**31 - 1
"""What protobuf allows."""


def check_packages() -> None:
    """Raises InputError if a package of the extra onnx is not installed."""
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"export to ONNX needs the package(s) {', '.join(missing)}", "pip install 'kdaug[onnx]'")


def export_onnx(graph_input: GraphInput, reference: Reference, path: Path) -> Comparison:
    """Writes the network of `graph_input` to `path` if it agrees with `reference` in ONNX Runtime.

    Input "images", output "logits", dynamic batch size; the default opset of the installed torch. The metadata is JSON
    in the metadata_props, under "kdaug". Raises InputError if the network cannot be exported, is too large for one
    file, or does not agree.
    """
    model = _convert(graph_input)

    def serialize(metadata: Metadata) -> bytes:
        del model.metadata_props[:]
        model.metadata_props.add(key=METADATA_KEY, value=json.dumps(metadata))
        content: bytes = model.SerializeToString()
        return content

    def load(content: bytes) -> Predict:
        return _session(content, graph_input)

    runtime = f"ONNX Runtime {import_module('onnxruntime').__version__}"
    return write_checked_file(path, serialize, load, runtime, reference, graph_input.metadata())


def _convert(graph_input: GraphInput) -> Any:
    """The network as an onnx.ModelProto, without the exporter's notes on each node."""
    source = graph_input.source
    size = sum(tensor.nbytes for tensor in source.network.state_dict().values())
    if size > _LARGEST_FILE:
        raise InputError(
            f"the weights of network {source.info.network} have {size / 2**30:.1f} GiB, but an ONNX file at most 2 GiB",
            "export with --to torch-export",
        )
    program = trace(graph_input, "ONNX")
    with explain_failure(source, "ONNX"), quiet():
        exported = torch.onnx.export(
            program, input_names=[INPUT], output_names=[OUTPUT], dynamic_shapes=batch_dimension(), external_data=False
        )
        assert exported is not None
        model = exported.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")  # more than the graph itself in a small network
        part.ClearField("doc_string")
    return model


def _session(content: bytes, graph_input: GraphInput) -> Predict:
    """Predicts with ONNX Runtime on the CPU."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors only
    with explain_failure(graph_input.source, "ONNX"):
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def predict(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: graph_input.prepare(images).numpy()})
        return torch.from_numpy(logits)

    return predict
