"""Loading the network of a finished run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from kdaug import InputError
from kdaug.config import ResolvedRecipe, read_recipe, to_dict
from kdaug.inference import load_run


@pytest.mark.parametrize("weights", ["last", "best"])
def test_the_network_has_the_weights_of_the_run(run_with_teacher: Path, weights: str) -> None:
    loaded = load_run(run_with_teacher, weights)
    assert loaded.path == run_with_teacher / f"{weights}.safetensors"
    tensors, state = safetensors.torch.load_file(loaded.path), loaded.network.state_dict()
    assert tensors.keys() == state.keys()
    assert all(torch.equal(tensors[name], state[name]) for name in tensors)


def test_a_loaded_run_has_its_recipe_and_card(run_with_teacher: Path) -> None:
    loaded = load_run(run_with_teacher / "recipe.yaml")
    assert loaded.directory.path == run_with_teacher
    assert isinstance(loaded.recipe, ResolvedRecipe)
    assert to_dict(loaded.recipe) == to_dict(read_recipe(run_with_teacher / "recipe.yaml"))
    assert (loaded.network_info.network, len(loaded.network_info.classes)) == ("small_convnet", 10)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "recipe.yaml").unlink(), r"is not a run directory: it has no recipe\.yaml"),
        (
            lambda run: (run / "last.safetensors").unlink(),
            r"has no last\.safetensors yet; finish the run: kdaug train '.*two words' --run\.resume",
        ),
        (lambda run: (run / "last.safetensors").write_text("x"), r"last\.safetensors is not a weight file"),
    ],
)
def test_a_run_that_cannot_be_loaded_is_refused(
    run_with_teacher: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    run = shutil.copytree(run_with_teacher, tmp_path / "two words")
    damage(run)
    with pytest.raises(InputError, match=message):
        load_run(run)
