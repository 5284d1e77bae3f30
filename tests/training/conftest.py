"""Fixtures of the tests of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.recipes import DROPOUT, TINY, with_settings

from kdaug.config import Recipe
from kdaug.training import train
from kdaug.training.labeling import LabelRequest, label_views


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a softmax regression with confident predictions."""
    generator = torch.Generator().manual_seed(5)
    tensors = {"fc.weight": torch.randn(10, 784, generator=generator) / 9, "fc.bias": torch.zeros(10)}
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of TINY; read only."""
    return train(with_settings(TINY, {"run.dir": str(tmp_path_factory.mktemp("tiny") / "run")})).directory


@pytest.fixture(scope="session")
def dropout_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of TINY with dropout, never stopped; read only."""
    run = tmp_path_factory.mktemp("dropout") / "run"
    return train(with_settings(TINY, {**DROPOUT, "run.dir": str(run)})).directory


@pytest.fixture(scope="session")
def label_store(run_with_teacher: Path, recipe_with_teacher: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The top 5 classes of the teacher of `run_with_teacher` in float32 for the views of its two epochs; read only."""
    folder = tmp_path_factory.mktemp("labels") / "store"
    label_views(recipe_with_teacher, folder, LabelRequest(precision="float32"))
    return folder


@pytest.fixture
def label_store_copy(label_store: Path, tmp_path: Path) -> Path:
    """A copy of `label_store` that a test may change."""
    return shutil.copytree(label_store, tmp_path / "store")
