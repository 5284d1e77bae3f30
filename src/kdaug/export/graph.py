"""The graph of a network with a dynamic batch size, and its description: the part that all graph formats share."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from kdaug.errors import InputError, one_line
from kdaug.export.source import ExportSource
from kdaug.networks import InputFormat

METADATA_KEY = "kdaug"
INPUT, OUTPUT = "images", "logits"


class NormalizedInput(nn.Module):
    """`network` with the normalization of `input_format` in front: takes images uint8 [N,H,W,C]. Does not resize.

    The same arithmetic as `InputFormat.normalize`, with the constants as buffers, so that they are part of the graph.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, network: nn.Module, input_format: InputFormat) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(input_format.mean) * 255)
        self.register_buffer("scale", 1 / (torch.tensor(input_format.std) * 255))

    def forward(self, images: Tensor) -> Tensor:
        normalized = ((images.float() - self.mean) * self.scale).permute(0, 3, 1, 2)
        # with the strides of channels_last, torch decomposes pooling into gathers, which other runtimes do not like
        logits: Tensor = self.network(normalized.clone(memory_format=torch.contiguous_format))
        return logits


@dataclass(frozen=True)
class GraphInput:
    """What a graph takes: uint8 [N,H,W,C] if `with_preprocessing`, else normalized float32 [N,C,H,W]."""

    source: ExportSource
    with_preprocessing: bool

    @property
    def dtype(self) -> torch.dtype:
        return torch.uint8 if self.with_preprocessing else torch.float32

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        (height, width), channels = self.source.info.size, len(self.source.info.mean)
        return (height, width, channels) if self.with_preprocessing else (channels, height, width)

    def prepare(self, images: Tensor) -> Tensor:
        """The input for images uint8 [N,H,W,C]."""
        return images if self.with_preprocessing else self.source.info.input_format.normalize(images).contiguous()

    def metadata(self) -> dict[str, Any]:
        """All that a program needs to prepare images and to read the output, as plain values for JSON."""
        info = self.source.info
        return {
            "kdaug": version("kdaug"),
            "network": info.network,
            "classes": list(info.classes),
            "mean": list(info.mean),
            "std": list(info.std),
            "size": list(info.size),
            "channels": "gray" if len(info.mean) == 1 else "RGB",
            "crop_fraction": self.source.crop_fraction,
            "interpolation": "bicubic",
            "input": {
                "name": INPUT,
                "dtype": str(self.dtype).removeprefix("torch."),
                "layout": "NHWC" if self.with_preprocessing else "NCHW",
                "shape": ["batch", *self.shape],
                "values": "0..255" if self.with_preprocessing else "(pixel / 255 - mean) / std",
            },
            "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", len(info.classes)]},
        }


def trace(graph_input: GraphInput, kind: str) -> torch.export.ExportedProgram:
    """The network's graph, in evaluation mode, for any batch size.

    kind: the format, for messages. Raises InputError if torch.export cannot trace the network.
    """
    source = graph_input.source
    network = source.network
    if graph_input.with_preprocessing:
        network = NormalizedInput(network, source.info.input_format).eval()
    # not 1 image: torch.export makes a batch size of 0 or 1 a constant
    example = torch.zeros(2, *graph_input.shape, dtype=graph_input.dtype)
    with explain_failure(source, kind), quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=batch_dimension(), strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it names source files by their paths on this machine
    return program


def batch_dimension() -> tuple[dict[int, Any]]:
    """The dynamic shapes of a graph's only input."""
    return ({0: torch.export.Dim("batch")},)


@contextlib.contextmanager
def explain_failure(source: ExportSource, kind: str) -> Iterator[None]:
    """Turns any error into an InputError with the innermost cause, in one line."""
    try:
        yield
    except Exception as error:  # of any type, from torch's compiler or the network
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = re.sub(r"\x1b\[\d*m", "", one_line(cause if isinstance(cause, Exception) else error))
        raise InputError(f"network {source.info.network} cannot be exported to {kind}: {reason}") from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppresses what torch, its exporters and the network print, log and warn about while a network is exported."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(action="ignore"),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
