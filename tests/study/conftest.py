"""What a finished run leaves, without the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kdaug.config import Recipe, to_yaml
from kdaug.training.resolve import resolve


def leave_run(path: Path, recipe: Recipe, error: float, finished: bool = True) -> None:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(to_yaml(resolve(replace(recipe, run=replace(recipe.run, dir=str(path))))))
    (path / "environment.json").write_text(json.dumps({"device": "cpu"}))
    lines = [{"kind": "eval", "step": 3, "epoch": 0, "top1_error": error}]
    end = {"top1_error": error, "top5_error": 1.0, "best_top1_error": error - 1, "seconds": 60.0, "images": 500}
    lines += [{"kind": "end", "step": 3, "epoch": 0, **end}] if finished else []
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="session")
def leave() -> Callable[..., None]:
    """leave(path, recipe, error, finished): writes a run directory as training with that error leaves it."""
    return leave_run
