"""Networks: ours are registered in timm's registry when this room is imported; all others are timm's own."""

from kdaug.networks import pyramidnet, shake_shake, wide_resnet
from kdaug.networks.create import (
    InputFormat,
    check_network_name,
    check_published,
    create_network,
    parameter_count,
    published_input,
    published_side,
    set_batch_norm_momentum,
    try_out,
)
from kdaug.networks.weights import (
    NetworkCard,
    fill_network,
    is_whole_file,
    read_weights,
    restore_network,
    rows_of_classifier,
    save_weights,
)

OURS = (
    *("wide_resnet16_1", "wide_resnet28_10", "wide_resnet40_2"),
    *("shake_shake26_2x32d", "shake_shake26_2x96d", "shake_shake26_2x112d"),
    *("pyramidnet272_a200_shakedrop", "pyramidnet29_a48_shakedrop"),
)
"""The paper's networks of ours and the smallest of each kind; there are more widths and depths."""

__all__ = [
    "OURS",
    "InputFormat",
    "NetworkCard",
    "check_network_name",
    "check_published",
    "create_network",
    "fill_network",
    "is_whole_file",
    "parameter_count",
    "published_input",
    "published_side",
    "pyramidnet",
    "read_weights",
    "restore_network",
    "rows_of_classifier",
    "save_weights",
    "set_batch_norm_momentum",
    "shake_shake",
    "try_out",
    "wide_resnet",
]
