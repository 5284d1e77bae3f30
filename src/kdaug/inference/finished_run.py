"""Loading the network of a finished run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from kdaug.config import ResolvedRecipe
from kdaug.errors import InputError
from kdaug.networks import NetworkInfo, load_network
from kdaug.runs import RunDirectory
from kdaug.training.resolve import read_resolved_recipe

Weights = Literal["last", "best"]
"""The final weights of a run, or those with the lowest validation error."""


@dataclass(frozen=True)
class LoadedRun:
    """A finished run: its recipe, and its network and info with the weights at `path`, in main memory."""

    directory: RunDirectory
    recipe: ResolvedRecipe
    path: Path
    network: nn.Module
    network_info: NetworkInfo


def load_run(run: Path, weights: Weights = "last") -> LoadedRun:
    """Loads the run in directory `run` (or with that recipe.yaml).

    Raises InputError if it is not a run directory, or its weights are missing or damaged. Loading executes no code.
    """
    directory = RunDirectory(run.parent if run.name == "recipe.yaml" else run)
    if not directory.recipe.is_file():
        raise InputError(
            f"{run} is not a run directory: it has no recipe.yaml",
            "exported folders and weight files are for kdaug predict and kdaug.load" if run.exists() else "",
        )
    path = directory.last_weights if weights == "last" else directory.best_weights
    if not path.is_file():
        raise InputError(
            f"{run} has no {path.name} yet",
            f"finish the run: kdaug train {shlex.quote(str(directory.path))} --run.resume",
        )
    network, info = load_network(path)
    return LoadedRun(directory, read_resolved_recipe(directory.recipe), path, network, info)
