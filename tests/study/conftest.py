"""The files of a run, written without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.recipes import with_settings

from kdaug.config import Recipe, to_yaml
from kdaug.training.resolve import resolve


def _write_run_files(path: Path, recipe: Recipe, error: float, finished: bool = True) -> None:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(to_yaml(resolve(with_settings(recipe, {"run.dir": str(path)}))))
    (path / "environment.json").write_text(json.dumps({"device": "cpu"}))
    lines = [{"kind": "eval", "step": 3, "epoch": 0, "top1_error": error}]
    end = {"top1_error": error, "top5_error": 1.0, "best_top1_error": error - 1, "seconds": 60.0, "images": 500}
    lines += [{"kind": "end", "step": 3, "epoch": 0, **end}] if finished else []
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="session")
def write_run_files() -> Callable[..., None]:
    """write_run_files(path, recipe, error, finished): the files of a run that ended with `error`, without weights."""
    return _write_run_files
