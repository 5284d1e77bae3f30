"""Trackers get the content of metrics.jsonl, resume the same run, and do not end a run when they fail.

wandb, mlflow and trackio are replaced by a fake with the parts of their interfaces that kdaug uses. With the libraries
installed (pip install 'kdaug[trackers]'), the slow test writes to the real ones.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from support.runs import read_lines
from support.steps import before_each_step

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.runs.trackers import open_trackers
from kdaug.training import train

TinyRecipe = Callable[..., Recipe]
Metrics = dict[str, float]


class FakeLibrary:
    """Records runs and metrics with the interface of wandb, trackio or mlflow; `log` fails from call `fails_at` on."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.logged: list[tuple[int, Metrics]] = []
        self.closed = 0
        self.fails_at: int | None = None

    # wandb and trackio
    def init(self, **options: Any) -> FakeLibrary:
        self.runs.append(options)
        return self

    def log(self, metrics: Metrics, step: int) -> None:
        if self.fails_at is not None and len(self.logged) >= self.fails_at:
            raise ConnectionError("no\nconnection")
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.closed += 1

    # mlflow.tracking.MlflowClient
    @property
    def tracking(self) -> SimpleNamespace:
        return SimpleNamespace(MlflowClient=lambda: self)

    def get_experiment_by_name(self, name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return f"experiment {name}"

    def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
        self.runs.append({"project": experiment, "name": run_name, "config": {}})
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{len(self.runs)}"))

    def log_param(self, run: str, name: str, value: Any) -> None:
        part, key = name.split(".")
        self.runs[-1]["config"].setdefault(part, {})[key] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.logged.append((step, {name: value}))

    def set_terminated(self, run: str) -> None:
        self.closed += 1


@pytest.fixture(params=["wandb", "trackio", "mlflow"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, FakeLibrary]:
    library = FakeLibrary()
    monkeypatch.setitem(sys.modules, request.param, library)
    return request.param, library


def test_a_tracker_gets_the_metrics_of_the_run(
    tiny_recipe: TinyRecipe, fake: tuple[str, FakeLibrary], console: Console
) -> None:
    name, library = fake
    recipe = tiny_recipe({"run.trackers": (name,), "optimization.epochs": 1})
    run = train(recipe, console).directory
    expected = [
        (line["step"], {f"{line['kind']}/{key}": line[key] for key in line if key not in ("kind", "step", "epoch")})
        for line in read_lines(run)
    ]
    assert flat(library.logged) == flat(expected)
    assert library.closed == 1
    assert library.runs[0]["config"]["optimization"]["learning_rate"] == recipe.optimization.learning_rate
    assert run.name in library.runs[0]["name"]


def flat(logged: list[tuple[int, Metrics]]) -> list[tuple[int, str, float]]:
    """One metric at a time, as mlflow gets them."""
    return [(step, name, value) for step, metrics in logged for name, value in metrics.items()]


def test_a_resumed_run_resumes_its_tracker_run(tiny_recipe: TinyRecipe, fake: tuple[str, FakeLibrary]) -> None:
    name, library = fake
    recipe = tiny_recipe(
        {"run.trackers": (name,), "optimization.epochs": 1, "run.resume": True, "run.checkpoint_steps": 1}
    )

    def fail(step: int, *_: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with before_each_step(fail), pytest.raises(KeyboardInterrupt):
        train(recipe)
    train(recipe)
    steps = [step for step, metrics in library.logged if "step/loss" in metrics]
    assert steps == [1, 2, 3, 4]
    if name == "mlflow":
        assert len(library.runs) == 1, "there must be no second run"
    else:
        first, second = library.runs
        assert first == second
        assert first["resume"] == "allow"


def test_two_runs_of_one_recipe_are_two_tracker_runs(fake: tuple[str, FakeLibrary], tmp_path: Path) -> None:
    name, library = fake
    runs = [tmp_path / folder / "run" for folder in ("a", "b")]
    for run in runs:
        run.mkdir(parents=True)
        open_trackers([name], run, {})
    assert len({(run / f"{name}.json").read_text() for run in runs}) == len(library.runs) == 2
    if name != "mlflow":
        assert library.runs[0] != library.runs[1]


def test_a_failing_tracker_is_disabled_with_one_warning(
    tiny_recipe: TinyRecipe, monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    library = FakeLibrary()
    library.fails_at = 2
    monkeypatch.setitem(sys.modules, "wandb", library)
    run = train(tiny_recipe({"run.trackers": ("wandb",), "optimization.epochs": 1}), console).directory
    assert len(library.logged) == 2
    assert read_lines(run)[-1]["kind"] == "end"
    warnings = [line for line in console.file.getvalue().splitlines() if "warning" in line]
    assert warnings == ["warning: tracker wandb failed and is disabled: no connection"]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_missing_tracker_is_named_before_anything_is_written(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"run\.trackers: {name} is not installed; pip install 'kdaug\[trackers\]'"):
        train(tiny_recipe({"run.trackers": (name,)}))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no\nlogin")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(InputError, match=r"run\.trackers wandb cannot be opened: no login"):
        open_trackers(["wandb"], tmp_path, {})


def test_trackers_opened_before_a_refused_one_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = FakeLibrary()
    monkeypatch.setitem(sys.modules, "wandb", first)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=None))
    with pytest.raises(InputError, match=r"run\.trackers trackio cannot be opened"):
        open_trackers(["wandb", "trackio"], tmp_path, {})
    assert first.closed == 1


@pytest.mark.slow
def test_the_real_libraries_log_the_metrics(
    tiny_recipe: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("wandb", "mlflow", "trackio"):
        pytest.importorskip(name, reason="pip install 'kdaug[trackers]'")
    run = train(tiny_recipe({"run.trackers": ("wandb", "mlflow", "trackio"), "optimization.epochs": 1})).directory
    (losses,) = (tmp_path / "mlruns").glob("*/*/metrics/step/loss")
    expected = [(line["step"], line["loss"]) for line in read_lines(run, "step")]
    assert [(int(step), float(loss)) for _, loss, step in map(str.split, losses.read_text().splitlines())] == expected
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert (tmp_path / "trackio" / "kdaug.db").is_file()
    assert json.loads((run / "mlflow.json").read_text())["run_id"]
