"""Finished runs and weight files to export."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from support.images import draw_shapes
from support.recipes import TINY, WITH_TEACHER, with_settings

from kdaug.export.reference import Reference, make_reference
from kdaug.export.source import ExportSource, load_source
from kdaug.networks import NetworkInfo, create_network, save_weights
from kdaug.training import train


@pytest.fixture(scope="session")
def gray_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the bundled gray images, without teacher; read only."""
    settings = {"student.name": "wide_resnet10_1", "run.dir": str(tmp_path_factory.mktemp("runs") / "gray")}
    return train(with_settings(TINY, {**settings, "run.evaluate_every": 2}), Console(file=io.StringIO())).directory


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes with twelve photos each; read only."""
    return draw_shapes(tmp_path_factory.mktemp("photos") / "shapes")


@pytest.fixture(scope="session")
def photo_run(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """A finished run on `photos`, with a teacher that was trained first; read only."""
    settings = {
        "data.name": "folder", "data.root": str(photos), "data.train_images": None, "data.image_size": 32,
        "data.val_fraction": 0.3, "data.workers": 0, "student.name": "wide_resnet10_1", "optimization.global_batch": 8,
        "optimization.epochs": 6, "run.dir": str(tmp_path_factory.mktemp("runs") / "photos"),
    }  # fmt: skip
    return train(with_settings(WITH_TEACHER, settings), Console(file=io.StringIO())).directory


@pytest.fixture(scope="session")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weight file of one of timm's networks, a vision transformer for 32 x 32 pixels; read only."""
    torch.manual_seed(0)
    info = NetworkInfo(
        "test_vit", ("cat", "dög", "`x`"), (0.5,) * 3, (0.25,) * 3, (32, 32), {"img_size": 32, "patch_size": 8}
    )
    network = create_network("test_vit", 3, 3, arguments=info.arguments)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # the classifier of a new network is almost zero
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    save_weights(network.state_dict(), info, path)
    return path


@pytest.fixture
def source(photo_run: Path) -> ExportSource:
    """The network of `photo_run`."""
    return load_source(photo_run, "last")


@pytest.fixture
def reference(source: ExportSource) -> Reference:
    """Its validation images and their logits."""
    return make_reference(source, None)
