"""Runs with magnitude factors: the recommendation writes them, training, label stores and resumed runs use them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from support.recipes import TINY, with_settings

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.data.images import ArrayImages
from kdaug.inspection import EvidenceRequest, recommend
from kdaug.supervision import load_teacher
from kdaug.training import train
from kdaug.training.batches import dataset_fingerprint, plan_views
from kdaug.training.context import build_context
from kdaug.training.labeling import LabelRequest, label_views
from kdaug.training.resolve import resolve
from kdaug.views.ops import CODES
from kdaug.views.policies import read_factors, write_factors

TinyRecipe = Callable[..., Recipe]
POLICY = {"views.policy": "randaugment-n2-m5@paper-geometric", "optimization.epochs": 1}


@pytest.fixture(scope="module")
def factors(run_with_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by a recommendation for the images of the tiny recipes, with the teacher of `run_with_teacher`."""
    folder = tmp_path_factory.mktemp("factors")
    settings = {**POLICY, "teacher.source": f"run:{run_with_teacher}", "run.dir": str(folder / "run")}
    request = EvidenceRequest(20, 1, (0,))
    recommend(with_settings(TINY, settings), request, Console(quiet=True), None, folder / "factors.safetensors")
    return folder / "factors.safetensors"


def test_the_factors_are_those_of_the_teachers_entropy(
    factors: Path, tiny_recipe: TinyRecipe, run_with_teacher: Path
) -> None:
    recipe = tiny_recipe({**POLICY, "teacher.source": f"run:{run_with_teacher}", "optimization.precision": "float32"})
    context = build_context(resolve(recipe), Console(quiet=True))
    images = context.dataset.train
    assert isinstance(images, ArrayImages)
    teacher = load_teacher(recipe.teacher, recipe.teacher.source, context.dataset)
    probs = teacher(torch.from_numpy(images.images)).double().softmax(1).numpy()
    expected = 1 + (probs * np.log(probs)).sum(1) / np.log(len(context.dataset.classes))
    np.testing.assert_allclose(read_factors(str(factors)).values, expected, atol=0.02)  # computed in bfloat16 there
    assert read_factors(str(factors)).images == dataset_fingerprint(context).data


def test_a_run_has_the_views_of_its_factors_and_a_label_store_too(
    factors: Path, tiny_recipe: TinyRecipe, run_with_teacher: Path, tmp_path: Path
) -> None:
    own = shutil.copy(factors, tmp_path / "own.safetensors")
    settings = {**POLICY, "views.magnitude_factors": str(own), "teacher.source": f"run:{run_with_teacher}"}
    recipe = tiny_recipe(settings)
    train(recipe, Console(quiet=True))
    context = build_context(resolve(replace(recipe, run=replace(recipe.run, dir="other"))), Console(quiet=True))
    rows = np.arange(40)
    without = build_context(resolve(tiny_recipe({**POLICY, "run.dir": "other"})), Console(quiet=True))
    plans = [plan_views(each, 0, rows) for each in (context, without)]
    linear = np.isin(plans[0].op[:, :2], [CODES[name] for name in ("rotate", "translate-x", "translate-y")])
    with_factors, plain = (plan.argument[:, :2, 0][linear] for plan in plans)
    own_factors = np.repeat(read_factors(str(own)).values[rows, None], 2, axis=1)[linear]
    np.testing.assert_allclose(with_factors, own_factors * plain)
    label_views(recipe, tmp_path / "labels", LabelRequest())
    moved = shutil.move(own, tmp_path / "moved.safetensors")
    student = {**settings, "views.magnitude_factors": str(moved), "teacher.labels": str(tmp_path / "labels")}
    train(tiny_recipe({**student, "run.dir": str(tmp_path / "student")}), Console(quiet=True))
    halved = read_factors(str(moved))
    write_factors(replace(halved, values=halved.values / 2), moved)
    with pytest.raises(InputError, match=r"views\.magnitude_factors"):
        train(tiny_recipe({**student, "run.dir": str(tmp_path / "again")}), Console(quiet=True))


def test_factors_of_other_images_are_refused(factors: Path, tiny_recipe: TinyRecipe, tmp_path: Path) -> None:
    settings = {**POLICY, "views.magnitude_factors": str(factors), "data.holdout": 0.5}
    with pytest.raises(InputError, match=r"views\.magnitude_factors .* are of other training images; write them"):
        train(tiny_recipe(settings), Console(quiet=True))


def test_a_recommendation_with_factors_is_refused(factors: Path, tiny_recipe: TinyRecipe) -> None:
    recipe = tiny_recipe({**POLICY, "views.magnitude_factors": str(factors), "teacher.source": "bundled"})
    with pytest.raises(InputError, match=r"views\.magnitude_factors is set, but a recommendation measures validation"):
        recommend(recipe, EvidenceRequest(20, 1, (0,)), Console(quiet=True))
