"""What the tests of exports share."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from kdaug.export.graph import GraphInput
from kdaug.export.source import ExportSource, load_source

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxscript", "onnxruntime"))), reason="the extra onnx is not installed"
)


def damaged(source: ExportSource) -> ExportSource:
    """`source` with a network whose first tensor differs by 1 %."""
    other = load_source(source.path, source.weights)
    with torch.no_grad():
        next(other.network.parameters()).mul_(1.01)
    return replace(source, network=other.network)


def damaged_input(graph_input: GraphInput) -> GraphInput:
    """`graph_input` of a damaged source."""
    return replace(graph_input, source=damaged(graph_input.source))
