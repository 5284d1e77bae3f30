"""Networks: ours are registered in timm's registry when this room is imported; all others are timm's own."""

from kdaug.networks import pyramidnet, shake_shake, wide_resnet
from kdaug.networks.create import (
    InputFormat,
    check_network_name,
    create_network,
    parameter_count,
    published_input,
    set_batch_norm_momentum,
    try_out,
)
from kdaug.networks.weights import NetworkCard, fill_network, is_whole, read_weights, restore_network, save_weights

__all__ = [
    "InputFormat",
    "NetworkCard",
    "check_network_name",
    "create_network",
    "fill_network",
    "is_whole",
    "parameter_count",
    "published_input",
    "pyramidnet",
    "read_weights",
    "restore_network",
    "save_weights",
    "set_batch_norm_momentum",
    "shake_shake",
    "try_out",
    "wide_resnet",
]
