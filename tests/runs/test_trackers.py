"""Trackers are told what metrics.jsonl says, resume under their own name, and cannot end a run by failing.

wandb, mlflow and trackio are not needed to test kdaug: each is stood in for by a module with the few names of its own
interface that are used. With them installed (pip install 'kdaug[trackers]'), the slow test writes to the real ones.
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

from kdaug import InputError
from kdaug.config import Recipe
from kdaug.runs.trackers import open_trackers
from kdaug.training import train

Tiny = Callable[..., Recipe]
Lines = Callable[[Path], list[dict[str, Any]]]


class StandIn:
    """Notes what it is told, as wandb, trackio or mlflow would be; fails from call `fails_at` on."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.told: list[tuple[int, dict[str, float]]] = []
        self.closed = 0
        self.fails_at: int | None = None

    # wandb and trackio
    def init(self, **options: Any) -> StandIn:
        self.begun.append(options)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        if self.fails_at is not None and len(self.told) >= self.fails_at:
            raise ConnectionError("the server\nis away")
        self.told.append((step, figures))

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
        self.begun.append({"project": experiment, "name": run_name, "config": {}})
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{len(self.begun)}"))

    def log_param(self, run: str, name: str, value: Any) -> None:
        part, key = name.split(".")
        self.begun[-1]["config"].setdefault(part, {})[key] = value

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        self.told.append((step, {name: value}))

    def set_terminated(self, run: str) -> None:
        self.closed += 1


@pytest.fixture(params=["wandb", "trackio", "mlflow"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, StandIn]:
    library = StandIn()
    monkeypatch.setitem(sys.modules, request.param, library)
    return request.param, library


def test_a_tracker_is_told_what_metrics_say(
    tiny: Tiny, lines_of: Lines, stand_in: tuple[str, StandIn], console: Console
) -> None:
    name, library = stand_in
    recipe = tiny({"run.trackers": (name,), "optimization.epochs": 1})
    run = train(recipe, console).directory
    wanted = [
        (line["step"], {f"{line['kind']}/{key}": line[key] for key in line if key not in ("kind", "step", "epoch")})
        for line in lines_of(run)
    ]
    assert flat(library.told) == flat(wanted)
    assert library.closed == 1
    assert library.begun[0]["config"]["optimization"]["learning_rate"] == recipe.optimization.learning_rate
    assert run.name in library.begun[0]["name"]


def flat(told: list[tuple[int, dict[str, float]]]) -> list[tuple[int, str, float]]:
    """One figure at a time, as mlflow is told."""
    return [(step, name, value) for step, figures in told for name, value in figures.items()]


def test_a_resumed_run_goes_on_in_the_same_tracker_run(
    tiny: Tiny, stand_in: tuple[str, StandIn], each_step: Callable
) -> None:
    name, library = stand_in
    recipe = tiny({"run.trackers": (name,), "optimization.epochs": 1, "run.resume": True, "run.checkpoint_steps": 1})

    def fail(step: int, *_: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with each_step(fail), pytest.raises(KeyboardInterrupt):
        train(recipe)
    train(recipe)
    steps = [step for step, figures in library.told if "step/loss" in figures]
    assert steps == [1, 2, 3, 4]
    if name == "mlflow":
        assert len(library.begun) == 1, "no second run"
    else:
        first, second = library.begun
        assert first == second
        assert first["resume"] == "allow"


def test_runs_of_one_recipe_are_different_runs_to_a_tracker(stand_in: tuple[str, StandIn], tmp_path: Path) -> None:
    name, library = stand_in
    for place in ("here", "there"):
        (tmp_path / place / "run").mkdir(parents=True)
        open_trackers([name], tmp_path / place / "run", {}, pytest.fail)
    notes = {(tmp_path / place / "run" / f"{name}.json").read_text() for place in ("here", "there")}
    assert len(notes) == len(library.begun) == 2
    if name != "mlflow":
        assert library.begun[0] != library.begun[1]


def test_a_tracker_that_fails_is_given_up_with_one_line_and_the_run_goes_on(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, console: Console, lines_of: Lines
) -> None:
    library = StandIn()
    library.fails_at = 2
    monkeypatch.setitem(sys.modules, "wandb", library)
    run = train(tiny({"run.trackers": ("wandb",), "optimization.epochs": 1}), console).directory
    assert len(library.told) == 2
    assert lines_of(run)[-1]["kind"] == "end"
    said = [line for line in console.file.getvalue().splitlines() if "warning" in line]
    assert said == ["warning: nothing more is reported to wandb: the server is away"]


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        InputError, match=rf"run\.trackers {name}: it is not installed; pip install 'kdaug\[trackers\]'"
    ):
        train(tiny({"run.trackers": (name,)}))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise RuntimeError("no\nlogin")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(InputError, match=r"run\.trackers wandb cannot be opened: no login"):
        open_trackers(["wandb"], tmp_path, {}, pytest.fail)


def test_trackers_that_were_opened_before_one_that_cannot_be_are_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", first)
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=None))
    with pytest.raises(InputError, match=r"run\.trackers trackio cannot be opened"):
        open_trackers(["wandb", "trackio"], tmp_path, {}, pytest.fail)
    assert first.closed == 1


@pytest.mark.slow
def test_the_real_libraries_take_what_they_are_told(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines_of: Lines
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in ("wandb", "mlflow", "trackio"):
        pytest.importorskip(name, reason="pip install 'kdaug[trackers]'")
    run = train(tiny({"run.trackers": ("wandb", "mlflow", "trackio"), "optimization.epochs": 1})).directory
    (losses,) = (tmp_path / "mlruns").glob("*/*/metrics/step/loss")
    wanted = [(line["step"], line["loss"]) for line in lines_of(run) if line["kind"] == "step"]
    assert [(int(step), float(loss)) for _, loss, step in map(str.split, losses.read_text().splitlines())] == wanted
    assert list((run / "wandb").glob("offline-run-*/*.wandb"))
    assert (tmp_path / "trackio" / "kdaug.db").is_file()
    assert json.loads((run / "mlflow.json").read_text())["run_id"]
