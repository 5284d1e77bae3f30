"""Networks by name, and weight files. Importing this package registers kdaug's networks in timm's registry."""

from kdaug.networks import pyramidnet, shake_shake, wide_resnet
from kdaug.networks.create import (
    Arguments,
    InputFormat,
    check_arguments,
    check_forward,
    check_network_name,
    check_published,
    count_parameters,
    create_network,
    published_image_size,
    published_mean_std,
    set_batch_norm_momentum,
)
from kdaug.networks.initial import (
    load_initial_weights,
    native_image_size,
    pin_weights,
    resolve_initial_weights,
    split_digest,
)
from kdaug.networks.weights import (
    NetworkInfo,
    classifier_size,
    find_weights,
    is_valid_weights_file,
    load_network,
    load_state,
    match_names,
    read_weights,
    save_weights,
)

OWN_NETWORKS = (
    *("wide_resnet16_1", "wide_resnet28_10", "wide_resnet40_2"),
    *("shake_shake26_2x32d", "shake_shake26_2x96d", "shake_shake26_2x112d"),
    *("pyramidnet272_a200_shakedrop", "pyramidnet29_a48_shakedrop"),
)
"""kdaug's networks that the paper uses, and the smallest of each family. More widths and depths are registered."""

__all__ = [
    "OWN_NETWORKS",
    "Arguments",
    "InputFormat",
    "NetworkInfo",
    "check_arguments",
    "check_forward",
    "check_network_name",
    "check_published",
    "classifier_size",
    "count_parameters",
    "create_network",
    "find_weights",
    "is_valid_weights_file",
    "load_initial_weights",
    "load_network",
    "load_state",
    "match_names",
    "native_image_size",
    "pin_weights",
    "published_image_size",
    "published_mean_std",
    "pyramidnet",
    "read_weights",
    "resolve_initial_weights",
    "save_weights",
    "set_batch_norm_momentum",
    "shake_shake",
    "split_digest",
    "wide_resnet",
]
