"""torch.export: a .pt2 file that torch loads without the code of the network."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch
from torch import Tensor

from kdaug.export.check import Comparison, Metadata, Predict, write_checked_file
from kdaug.export.graph import METADATA_KEY, GraphInput, explain_failure, quiet, trace
from kdaug.export.reference import Reference

METADATA_FILE = f"{METADATA_KEY}.json"


def export_torch(graph_input: GraphInput, reference: Reference, path: Path) -> Comparison:
    """Writes the network of `graph_input` to `path` if it agrees with `reference` after torch.export.load.

    Dynamic batch size. The metadata is JSON in the extra file "kdaug.json". Raises InputError if the network cannot be
    exported or does not agree.
    """
    program = trace(graph_input, "torch.export")

    def serialize(metadata: Metadata) -> bytes:
        file = io.BytesIO()
        with explain_failure(graph_input.source, "torch.export"), quiet():
            torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(metadata)})
        return file.getvalue()

    def load(content: bytes) -> Predict:
        with explain_failure(graph_input.source, "torch.export"), quiet():
            network = torch.export.load(io.BytesIO(content)).module()

        def predict(images: Tensor) -> Tensor:
            with torch.no_grad():
                logits: Tensor = network(graph_input.prepare(images))
            return logits

        return predict

    return write_checked_file(path, serialize, load, f"torch {torch.__version__}", reference, graph_input.metadata())
