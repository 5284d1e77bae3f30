"""benchmarks/views.py: a short run measures what is installed and names what is missing; its docs page is current."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SETTINGS = [(size, filter) for size in (32, 224) for filter in ("nearest", "bilinear")]


@pytest.fixture
def short_run(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images, two rounds, and a constant gain of the second thread."""
    views = load_script("views")
    monkeypatch.setattr(views, "ROUNDS", 2)
    monkeypatch.setattr(views, "two_threads_gain", lambda: [1.5, 1.9])
    monkeypatch.setitem(views.COUNTS, 32, 8)
    monkeypatch.setitem(views.COUNTS, 224, 2)


@pytest.mark.usefixtures("short_run")
def test_run_measures_installed_and_names_missing(
    run_script: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    written = tmp_path / "views.json"
    output = run_script("views", "--only", "ours,pillow,kornia,ops", "--seconds", "0.01", "--json", written)
    assert output.exit == 0
    report = json.loads(written.read_text(encoding="utf-8"))

    measured = {(one["contender"], one["size"], one["filter"]): one["microseconds"] for one in report["timings"]}
    assert set(measured) == {(name, *setting) for name in ("ours", "pillow") for setting in SETTINGS}
    for spread in measured.values():
        assert 0 < spread["lowest"] <= spread["median"] <= spread["highest"]
        assert len(spread["rounds"]) == 2
    missing = {one["name"]: one["missing"] for one in report["entrants"]}
    assert missing["ours"] is missing["pillow"] is None
    assert "kornia" in missing["kornia"]
    assert all(one["differs"] for one in report["entrants"])

    assert report["two_threads"]["rounds"] == [1.5, 1.9] * len(SETTINGS)
    machine = report["machine"]
    assert machine["processor"]
    assert machine["cores"] >= 1
    assert {"numpy", "numba", "pillow", "torchvision", "kornia"} <= set(machine["versions"])
    assert [(one["size"], one["images"]) for one in report["batches"]] == [(32, 8), (224, 2)]
    assert all("Fashion-MNIST" in one["source"] for one in report["batches"])
    assert {one["measured"] for one in report["targets"]} == {None}
    for op in report["ops"]:
        assert op["times_floor"] == pytest.approx(op["ours"]["median"] / op["floor"], abs=0.01)

    assert f"**Missing: {missing['kornia']}.**" in output.stdout
    assert "round 2 of 2" in output.stderr
    assert run_script("views", "--table", written).stdout == output.stdout


def test_unknown_name_is_an_error(run_script: Callable[..., Any]) -> None:
    output = run_script("views", "--only", "ours,korina")
    assert output.exit == 2
    assert "'korina' is unknown; choose from ours, ours-2," in output.stderr


def test_difference_from_pillow_stops_the_script(
    run_script: Callable[..., Any],
    load_script: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
    short_run: None,
) -> None:
    views = load_script("views")
    apply = views.kdaug.apply
    monkeypatch.setattr(views.kdaug, "apply", lambda images, plan: apply(images, plan) ^ 1)
    assert "differs from Pillow's" in run_script("views", "--only", "ours").exit


def test_docs_page_shows_committed_results(assert_page_shows: Callable[[str, str], None]) -> None:
    assert_page_shows("benchmarks.md", "views")
