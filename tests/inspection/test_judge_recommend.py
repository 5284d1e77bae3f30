"""tools/judge_recommend.py on run directories with made-up errors, and the evidence of a real network."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from support.recipes import TINY
from support.tools import load_tool

from kdaug.config import Teacher, to_yaml
from kdaug.networks import create_network, save_weights
from kdaug.training.context import build_context
from kdaug.training.resolve import resolve

ROOT = Path(__file__).parents[2]
ERRORS = {
    "none": {0.0: (20.0, 22.0), 3.0: (23.0, 25.0), 9.0: (40.0, 42.0)},
    "file:teacher.safetensors": {0.0: (22.0, 22.0), 3.0: (18.0, 19.0), 9.0: (30.0, 30.0)},
}
"""By teacher and magnitude, for seeds 0 and 1."""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("judge_recommend")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Finished runs of ERRORS, one that is alone with its settings, and the weights of their teacher."""
    for source, errors in ERRORS.items():
        for magnitude, of_seeds in errors.items():
            for seed, error in enumerate(of_seeds):
                write_run(tmp_path / "study", source, magnitude, seed, error)
    write_run(tmp_path / "study", "none", 5.0, 0, 1.0, batch=32)
    context = build_context(resolve(replace(TINY, run=replace(TINY.run, dir="unused"))), Console(quiet=True))
    network = create_network("softmax_regression", 10, 1)
    save_weights(network.state_dict(), context.network_info, tmp_path / "teacher.safetensors")
    return tmp_path / "study"


def write_run(folder: Path, source: str, magnitude: float, seed: int, error: float, batch: int = 64) -> None:
    path = folder / f"m{magnitude:g}-{source[:4]}-{batch}-{seed}"
    path.mkdir(parents=True)
    recipe = replace(
        TINY,
        views=replace(TINY.views, magnitude=magnitude),
        teacher=Teacher(source=source),
        optimization=replace(TINY.optimization, global_batch=batch),
        run=replace(TINY.run, dir="runs/elsewhere", seed=seed),
    )
    (path / "recipe.yaml").write_text(to_yaml(resolve(recipe)))
    (path / "environment.json").write_text(json.dumps({"data": "0123"}))
    end = {"kind": "end", "step": 4, "epoch": 1, "top1_error": error, "top5_error": 0.0, "best_top1_error": error,
           "seconds": 1.0, "images": 2000}  # fmt: skip
    (path / "metrics.jsonl").write_text(json.dumps(end) + "\n")


def test_errors_are_compared_with_the_evidence(
    tool: ModuleType, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(study.parent)  # the teacher's file is named relative to it
    command = ["judge_recommend", str(study), "--images", "50", "--draws", "1", "--threads", "1", "--out", "judged"]
    monkeypatch.setattr(sys, "argv", command)
    tool.main()
    table = capsys.readouterr().out
    assert table == (study.parent / "judged" / "table.md").read_text()
    judged = {each["with_teacher"]: each for each in json.loads((study.parent / "judged/judgements.json").read_text())}
    assert set(judged) == {True, False}
    for with_teacher, errors, best in (
        (False, {"0.0": 21.0, "3.0": 24.0, "9.0": 41.0}, 0),
        (True, {"0.0": 22.0, "3.0": 18.5, "9.0": 30.0}, 3),
    ):
        each = judged[with_teacher]
        assert (each["errors"], each["best"], each["seeds"]) == (errors, best, 2)
        assert [e["magnitude"] for e in each["evidence"]] == [0, 3, 9]
        assert each["lost"] == pytest.approx(errors[str(each["recommended"])] - min(errors.values()))
    spreads = [e["t_stddev"] for e in judged[False]["evidence"]]
    rank = sorted(spreads).index
    differences = [rank(spread) - place for spread, place in zip(spreads, (0, 1, 2), strict=True)]
    expected = 1 - 6 * sum(d**2 for d in differences) / (3 * (9 - 1))
    assert judged[False]["correlations"]["T. stddev"] == pytest.approx(expected)

    before = (study.parent / "judged" / "judgements.json").read_text()
    monkeypatch.setattr(sys, "argv", ["judge_recommend", "judged", "--out", "again"])
    tool.main()
    assert (study.parent / "again" / "judgements.json").read_text() == before
    monkeypatch.setattr(tool, "choose_magnitude", lambda evidence, least_trust=0: (evidence[-1], ""))
    assert [each.recommended for each in tool.judge_again(study.parent / "judged" / "judgements.json")] == [9, 9]


def test_a_run_without_any_teacher_is_one_error(tool: ModuleType, tmp_path: Path) -> None:
    for magnitude in (0.0, 3.0, 9.0):
        write_run(tmp_path / "study", "none", magnitude, 0, 20.0)
    (sweep,) = tool.find_sweeps(tmp_path / "study")
    options = tool.argparse.Namespace(root=None, teacher=None, images=20, draws=1, threads=1)
    with pytest.raises(tool.InputError, match="has no teacher, and no run like it has one; name one with --teacher"):
        tool.measure(tool.recipe_source(sweep, [sweep]), (0.0,), options)
