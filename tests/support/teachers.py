"""Teachers for tests."""

from __future__ import annotations

import torch

from kdaug.networks import create_network
from kdaug.supervision import Teacher
from kdaug.training.context import TrainContext


def tiny_teacher(context: TrainContext) -> Teacher:
    """An untrained network whose most probable classes differ from image to image."""
    torch.manual_seed(3)
    network = create_network("wide_resnet10_1", len(context.dataset.classes), context.dataset.channels)
    with torch.no_grad():
        network.fc.weight -= network.fc.weight.mean(1, keepdim=True)  # features are positive
        network.fc.weight *= 30
    return Teacher(network, context.network_info.input_format)
