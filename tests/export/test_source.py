"""What can be exported: finished runs and weight files of kdaug."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kdaug import InputError
from kdaug.export.source import load_source


@pytest.mark.parametrize("weights", ["last", "best"])
def test_the_network_has_the_weights_of_the_run(photo_run: Path, weights: str) -> None:
    source = load_source(photo_run, weights)
    tensors, state = safetensors.torch.load_file(photo_run / f"{weights}.safetensors"), source.network.state_dict()
    assert all(torch.equal(tensors[name], state[name]) for name in tensors)
    assert not source.network.training
    assert not any(parameter.requires_grad for parameter in source.network.parameters())


def test_a_weight_file_of_a_run_is_the_same_network(photo_run: Path) -> None:
    source = load_source(photo_run / "best.safetensors", "last")
    assert (source.run, source.info.classes) == (None, ("cross", "disc", "square"))


def test_the_crop_is_that_of_the_evaluation(gray_run: Path, photo_run: Path) -> None:
    assert load_source(gray_run, "last").crop_fraction == 1
    assert load_source(photo_run, "last").crop_fraction == 0.875
    assert load_source(photo_run / "last.safetensors", "last").crop_fraction == 0.875


@pytest.mark.parametrize(
    ("damage", "path", "weights", "reason"),
    [
        (lambda run: shutil.rmtree(run), "", "last", "does not exist; give a run directory, or a weight file"),
        (lambda run: (run / "last.safetensors").unlink(), "", "last", r"is not a finished run; finish it: kdaug train"),
        (lambda run: (run / "last.safetensors").unlink(), "", "best", r"is not a finished run; finish it: kdaug train"),
        (lambda run: (run / "recipe.yaml").unlink(), "", "last", "is not a run directory"),
        (lambda run: None, "last.safetensors", "best", "is a weight file, so it has no best weights"),
        (lambda run: (run / "last.safetensors").write_text("x"), "last.safetensors", "last", "is not a weight file"),
    ],
    ids=["missing", "unfinished", "unfinished, best", "not a run", "best of a file", "damaged"],
)
def test_what_cannot_be_exported_is_refused(
    photo_run: Path, tmp_path: Path, damage: Callable[[Path], None], path: str, weights: str, reason: str
) -> None:
    run = shutil.copytree(photo_run, tmp_path / "run")
    damage(run)
    with pytest.raises(InputError, match=reason):
        load_source(run / path, weights)
