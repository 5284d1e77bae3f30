"""A small folder of photos, and requests to plan a run on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.hub import refusing_address, use_hub
from support.images import draw_shapes
from support.recipes import SMALL_PHOTOS, with_settings

from kdaug.photos import Request
from kdaug.recipes import named_recipe


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 photos of three classes, of which 33 are trained on; read only."""
    return draw_shapes(tmp_path_factory.mktemp("photos") / "shapes")


@pytest.fixture(autouse=True)
def _no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache and a hub that refuses connections."""
    use_hub(monkeypatch, tmp_path / "cache", refusing_address())


@pytest.fixture
def request_for(shapes: Path, tmp_path: Path) -> Callable[..., Request]:
    """The request to train a small network on `shapes` with some settings given."""

    def make(settings: dict[str, Any] | None = None, minutes: float | None = None) -> Request:
        given = {**SMALL_PHOTOS, "data.root": str(shapes), "run.dir": str(tmp_path / "run"), **(settings or {})}
        given = {name: value for name, value in given.items() if value != "not given"}
        return Request(with_settings(named_recipe("photos"), given), frozenset(given), minutes, started=0.0)

    return make
