"""Tracing: networks that cannot be exported are one clear line, and the libraries print nothing."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kdaug import InputError
from kdaug.export.graph import GraphInput, NormalizedInput, quiet, trace
from kdaug.export.source import ExportSource
from kdaug.networks import InputFormat


class DependsOnData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) if x.sum() > 0 else -x.flatten(1)


class FixedBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([image.flatten() for image in x])


@pytest.mark.parametrize("network", [DependsOnData(), FixedBatch()])
def test_a_network_that_cannot_be_traced_is_one_line(
    source: ExportSource, network: nn.Module, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=r"network wide_resnet10_1 cannot be exported to ONNX: .+") as error:
        trace(GraphInput(replace(source, network=network), False), "ONNX")
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_the_batch_size_is_dynamic_and_the_image_size_is_not(source: ExportSource) -> None:
    program = trace(GraphInput(source, False), "ONNX")
    assert program.module()(torch.zeros(9, 3, 32, 32)).shape == (9, 3)
    with pytest.raises(Exception, match="32"):
        program.module()(torch.zeros(9, 3, 40, 32))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_normalization_inside_is_the_one_of_the_run(channels: int) -> None:
    input_format = InputFormat((0.2, 0.4, 0.9)[:channels], (0.1, 0.5, 0.25)[:channels], None)
    images = torch.randint(0, 256, (4, 6, 5, channels), dtype=torch.uint8)
    inside = NormalizedInput(nn.Identity(), input_format)(images)
    assert torch.equal(inside, input_format.normalize(images))
    assert inside.stride() == (channels * 30, 30, 5, 1), "channels_last would make torch decompose pooling into gathers"


def test_logging_and_warnings_are_as_before(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        logging.getLogger("torch").error("inside")
    logging.getLogger("torch").error("after")
    assert caplog.messages == ["after"]
