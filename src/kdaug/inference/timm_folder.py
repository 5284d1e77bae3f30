"""Folders in timm's layout: config.json and model.safetensors, as `timm.create_model("local-dir:PATH")` opens them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from kdaug.data.crops import CenterCrop
from kdaug.errors import InputError
from kdaug.inference.preprocessing import Preprocessing
from kdaug.networks import InputFormat, check_network_name, create_network, load_state, read_weights

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
_logger = logging.getLogger(__name__)
_TRAINING_ARGUMENTS = frozenset(("num_classes", "in_chans", "drop_rate", "drop_path_rate"))
"""Arguments that timm stores and that are known from elsewhere or change nothing in evaluation."""
_DEFAULT_CROP = 0.875


def load_timm_folder(folder: Path) -> tuple[nn.Module, tuple[str, ...], Preprocessing]:
    """(network, class names, preprocessing) of a folder in timm's layout, in main memory.

    The class names are label_names in config.json. Images are cropped and resized in one step and always bicubic, so
    that pixels differ slightly from those of timm's transforms. Raises InputError if a file is missing or damaged, or
    if there are no class names. Loading executes no code.
    """
    path = folder / CONFIG_NAME
    config = _read_json(path)
    published = config.get("pretrained_cfg", config)  # older folders have one flat mapping
    try:
        architecture, classes = config["architecture"], _class_names(config, published, path)
        arguments = dict(config.get("model_args") or {})
        preprocessing = _preprocessing(published, arguments, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a configuration of timm ({type(error).__name__}: {error})") from None
    check_network_name(architecture)
    network = create_network(
        architecture,
        len(classes),
        preprocessing.channels,
        arguments={name: value for name, value in arguments.items() if name not in _TRAINING_ARGUMENTS},
    )
    weights = folder / WEIGHTS_NAME
    tensors, _ = read_weights(weights)
    load_state(network, tensors, len(classes), weights)
    _note_other_resizing(published, folder)
    return network, classes, preprocessing


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a JSON object")
    return content


def _class_names(config: Mapping[str, Any], published: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The class names by output: a list, or a mapping from the index of the output."""
    names = config.get("label_names") or published.get("label_names") or published.get("labels")
    if not names:
        raise InputError(f"{path} has no class names", 'add them, in the order of the outputs: "label_names": [...]')
    if isinstance(names, dict):
        by_index = {int(index): name for index, name in names.items()}
        names = [by_index[index] for index in range(len(by_index))]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("label_names is not a list of names")
    outputs = config.get("num_classes", published.get("num_classes", len(names)))
    if outputs != len(names):
        raise InputError(f"{path} has {len(names)} class names for {outputs} outputs", "give each output a name")
    return tuple(names)


def _preprocessing(published: Mapping[str, Any], arguments: Mapping[str, Any], path: Path) -> Preprocessing:
    """The preprocessing of timm's evaluation: of the size that the network is built for, else of the test sizes."""
    channels, *size = published.get("test_input_size") or published["input_size"]
    size = arguments.get("img_size") or size
    height, width = (size, size) if type(size) is int else size
    if height != width:
        raise InputError(f"{path}: the network takes images of {height} x {width} pixels, which are not square")
    channels = arguments.get("in_chans") or channels
    mean, std = (tuple(float(value) for value in published[name]) for name in ("mean", "std"))
    if not len(mean) == len(std) == channels or channels not in (1, 3):
        raise ValueError(f"mean and std of {len(mean)} and {len(std)} values for {channels} channels")
    fraction = float(published.get("test_crop_pct") or published.get("crop_pct") or _DEFAULT_CROP)
    if type(height) is not int or height < 1 or not 0 < fraction <= 1:
        raise ValueError(f"size {height} or crop_pct {fraction}")
    return Preprocessing(CenterCrop(height, fraction), InputFormat(mean, std, (height, width)))


def _note_other_resizing(published: Mapping[str, Any], folder: Path) -> None:
    """Logs if timm prepares the images of this network in another way."""
    interpolation, mode = published.get("interpolation", "bicubic"), published.get("crop_mode", "center")
    if interpolation != "bicubic" or mode != "center":
        _logger.info(
            f"note: {folder} is for images resized with {interpolation} interpolation, crop mode {mode}; kdaug uses "
            "bicubic and the central square, so probabilities may differ slightly"
        )
