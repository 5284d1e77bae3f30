"""What is exported: the network of a finished run or of a weight file, as it is evaluated."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from kdaug.data.crops import CenterCrop
from kdaug.errors import InputError
from kdaug.inference import LoadedRun, load_run
from kdaug.inference.finished_run import Weights
from kdaug.networks import NetworkInfo, check_forward, load_network
from kdaug.runs import RunDirectory


@dataclass(frozen=True)
class ExportSource:
    """A network in evaluation mode, in main memory, without gradients.

    path: the run directory or the weight file. info: its size is the one that the run is evaluated at. weights: which
    of the run's. run: None for a weight file.
    """

    path: Path
    network: nn.Module
    info: NetworkInfo
    weights: Weights
    run: LoadedRun | None

    @property
    def crop_fraction(self) -> float:
        """The side of the central square that the network gets, as a fraction of the image's shorter side.

        1 for datasets in memory, whose images are used whole. Images of a weight file count as decoded ones.
        """
        if self.run is not None and not self.run.recipe.data.encoded:
            return 1.0
        left, _, right, _ = CenterCrop(self.info.size[0]).box(0, 0, 1, 1)
        return right - left

    def predict(self, images: Tensor) -> Tensor:
        """Logits [N,classes] of images uint8 [N,H,W,C] whose size is `info.size`."""
        with torch.no_grad():
            logits: Tensor = self.network(self.info.input_format.normalize(images))
        return logits


def load_source(path: Path, weights: Weights) -> ExportSource:
    """The network of the finished run in directory `path`, or of the weight file `path`, which kdaug wrote.

    Raises InputError if there is none, if the run is not finished, or if the weights are damaged.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist", "give a run directory, or a weight file that kdaug wrote")
    if path.is_file() and path.name != "recipe.yaml":
        if weights != "last":
            raise InputError(f"{path} is a weight file, so it has no {weights} weights", "leave --weights out")
        network, info = load_network(path)
        return ExportSource(path, network.eval().requires_grad_(False), info, weights, None)
    _require_finished(path)
    run = load_run(path, weights)
    network, info, side = run.network.eval().requires_grad_(False), run.network_info, run.recipe.run.evaluate_size
    if side is not None:
        info = replace(info, size=(side, side))
        check_forward(network, info.network, 1, len(info.mean), info.size)
    return ExportSource(run.directory.path, network, info, weights, run)


def _require_finished(path: Path) -> None:
    """Raises InputError for a run that has no final weights yet. It may already have its best ones."""
    directory = RunDirectory(path.parent if path.name == "recipe.yaml" else path)
    if directory.recipe.is_file() and not directory.last_weights.is_file():
        command = f"kdaug train {shlex.quote(str(directory.path))} --run.resume"
        raise InputError(f"{directory.path} is not a finished run", f"finish it: {command}")
