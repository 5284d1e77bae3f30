"""`kdaug.load`: a classifier from a run, a weight file, or a folder in timm's layout."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from kdaug.config import Optimization, Run
from kdaug.device import find_device, find_precision
from kdaug.errors import InputError
from kdaug.inference.finished_run import load_run
from kdaug.inference.model import Classifier
from kdaug.inference.preprocessing import Preprocessing, preprocessing_of
from kdaug.inference.timm_folder import CONFIG_NAME, load_timm_folder
from kdaug.networks import check_forward, load_network
from kdaug.runs import RunDirectory
from kdaug.training.evaluation import EVALUATION_BATCH

_PLAIN = Optimization(precision="float32")
_HINT = "give a run directory, a weight file that kdaug wrote, or a folder with config.json and model.safetensors"


@dataclass(frozen=True)
class _Loaded:
    """What was loaded, in main memory. optimization, run: the settings of the run, or those for a mere file."""

    network: nn.Module
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    optimization: Optimization
    run: Run


def load(source: str | os.PathLike[str], device: str = "auto") -> Classifier:
    """A trained network, ready to predict.

    source: the directory of a finished run (its final weights, precision and run.evaluate_size), a weight file that
    kdaug wrote (such as a run's best.safetensors), or a folder with config.json and model.safetensors as timm writes
    them for the Hugging Face hub (with label_names in config.json). The last two predict in float32. device: auto (a
    GPU if available), cpu, cuda, ...

    Raises InputError if `source` is none of these, is damaged, or is a run that is not finished; of such a run, its
    best.safetensors can be loaded. Loading executes no code.
    """
    path = Path(source)
    loaded = _load(path)
    network, size = loaded.network.eval(), loaded.preprocessing.input_size
    check_forward(network, str(path), 1, loaded.preprocessing.channels, size)
    found = find_device(device)
    network.to(found, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Classifier(
        network,
        loaded.classes,
        loaded.preprocessing,
        found,
        find_precision(loaded.optimization, found),
        min(EVALUATION_BATCH, loaded.run.device_batch or EVALUATION_BATCH),
    )


def _load(path: Path) -> _Loaded:
    if not path.exists():
        is_remote = str(path).startswith("hf-hub:")
        raise InputError(f"{path} does not exist", "download the repository first" if is_remote else _HINT)
    if (path / "recipe.yaml").is_file() or path.name == "recipe.yaml":
        return _from_run(path)
    if path.is_file():
        network, info = load_network(path)
        return _Loaded(network, info.classes, preprocessing_of(info), _PLAIN, Run())
    if (path / CONFIG_NAME).is_file():
        return _Loaded(*load_timm_folder(path), _PLAIN, Run())
    raise InputError(f"{path} has neither recipe.yaml nor {CONFIG_NAME}", _HINT)


def _from_run(path: Path) -> _Loaded:
    directory = RunDirectory(path.parent if path.name == "recipe.yaml" else path)
    if directory.best_weights.is_file() and not directory.last_weights.is_file():
        raise InputError(
            f"{path} is not finished: it has no {directory.last_weights.name} yet",
            f"finish it (kdaug train {shlex.quote(str(directory.path))} --run.resume), or load the weights with the "
            f"lowest error so far, {directory.best_weights}",
        )
    loaded = load_run(path)
    recipe = loaded.recipe
    # Files of older versions do not say these two.
    info = replace(loaded.network_info, photos=recipe.data.encoded, evaluate_size=recipe.run.evaluate_size)
    return _Loaded(loaded.network, info.classes, preprocessing_of(info), recipe.optimization, recipe.run)
