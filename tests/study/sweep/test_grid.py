"""Grids and lists of runs: every combination once, YAML values, file names, and errors."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdaug.errors import InputError
from kdaug.study.sweep import expand_grid, read_run_list, run_names
from kdaug.study.sweep.grid import parse_axis


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(["a.x", "a.y", "b.x"]), st.lists(st.integers(0, 99), min_size=1, unique=True)))
def test_grid_has_every_combination_once(axes: dict[str, list[int]]) -> None:
    runs = expand_grid([f"{name}={','.join(map(str, values))}" for name, values in axes.items()])
    assert len(runs) == math.prod(map(len, axes.values()))
    assert len({tuple(run.items()) for run in runs}) == len(runs)
    assert all(list(run) == list(axes) and all(run[name] in axes[name] for name in run) for run in runs)
    assert len(set(run_names(runs))) == len(runs)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("run.seed=0..3", [0, 1, 2, 3]),
        ("run.seed=7", [7]),
        ("run.seed=1,4..5", [1, 4, 5]),
        ("views.magnitude=0,0.5,1e-3", [0, 0.5, 0.001]),
        ("teacher.source=none,train,run:runs/x", ["none", "train", "run:runs/x"]),
        ("views.policy=randaugment-n2-m9@tf-efficientnet,'a,b'", ["randaugment-n2-m9@tf-efficientnet", "a,b"]),
        ("optimization.milestones=[30, 60],[45]", [[30, 60], [45]]),
        ("teacher.image-size=None,96", [None, 96]),
        ("views.flip=true,false", [True, False]),
    ],
)
def test_values_are_read_as_yaml(text: str, values: list[Any]) -> None:
    name, read = parse_axis(text)
    assert name == text.partition("=")[0].replace("-", "_")
    assert read == values
    assert [type(value) for value in read] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["views.magnitude"], "'views.magnitude' is not a setting with values, such as views.magnitude=0,1,2"),
        (["views.magnitude="], "is not a setting with values"),
        (["magnitude=1"], "is not a setting with values"),
        (["views.magnitude=[1"], "cannot be read"),
        (["views.policy=!!python/name:os.system"], "cannot be read"),
        (["run.seed=3..1"], "the range 3..1 is empty"),
        (["run.seed=1,0..1"], "has a value twice"),
        (["run.seed=1", "run.seed=2"], "run.seed is given twice; write all its values in one list"),
    ],
)
def test_invalid_axis_is_an_error(axes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        expand_grid(axes)


def test_run_list_has_one_run_per_line(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    file.write_text("# two runs\n\nviews.magnitude=5 run.seed=1  # the first\nviews.policy='a b'\n")
    assert read_run_list(file) == {
        "magnitude=5_seed=1": {"views.magnitude": 5, "run.seed": 1},
        "policy=a-b": {"views.policy": "a b"},
    }


def test_runs_in_a_list_can_have_names(tmp_path: Path) -> None:
    file = tmp_path / "runs.txt"
    file.write_text("strong: views.magnitude=9\nrun.seed=1\nplain:\nboth: 'teacher.source=\"run:A,run:B\"'\n")
    assert list(read_run_list(file).items()) == [
        ("strong", {"views.magnitude": 9}),
        ("seed=1", {"run.seed": 1}),
        ("plain", {}),
        ("both", {"teacher.source": "run:A,run:B"}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"views.magnitude=1\nviews.magnitude=1,2\n", "line 2: must be one run"),
        (b"views.policy='a\n", "line 1: must be one run"),
        (b"a: run.seed=1\na: run.seed=2\n", "two runs have the name a; list each run once, with a name of its own"),
        (b"seed=1: run.seed=2\n", "line 1: 'seed=1' cannot be the name of a run"),
        (b"../up: run.seed=1\n", "line 1: '../up' cannot be the name of a run; a name is up to 150 letters"),
        (b".hidden: run.seed=1\n", "line 1: '.hidden' cannot be the name of a run"),
        (b": run.seed=1\n", "line 1: '' cannot be the name of a run"),
        (b"logs: run.seed=1\n", "line 1: a run cannot have the name logs, which the sweep itself uses; choose another"),
        (b"teacher-a: run.seed=1\n", "line 1: a run cannot have the name teacher-a"),
        (b"a: run.seed=1,2\n", "line 1: must be one run, .*; put a value with commas in two pairs of quotes"),
        (b"\nnothing\n", "line 2: 'nothing' is not a setting with values"),
        (b"# nothing\n", "is empty"),
        (b"\xff\xfe", "not UTF-8"),
        (None, "No such file"),
    ],
)
def test_invalid_run_list_is_an_error(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "runs.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_run_list(tmp_path / "runs.txt")


def test_run_names_are_short_file_names() -> None:
    assert run_names([{"views.magnitude": 5, "run.seed": 0}]) == ["magnitude=5_seed=0"]
    assert run_names([{"views.seed": 5, "run.seed": 0}]) == ["views.seed=5_run.seed=0"]
    assert run_names([{"teacher.source": "run:a/b c"}, {}]) == ["source=run-a-b-c", "run"]
    first, second = run_names([{"views.policy": "x" * 400 + end} for end in "ab"])
    assert first != second
    assert len(first.encode()) < 200
    with pytest.raises(InputError, match="two runs have the name seed=1"):
        run_names([{"run.seed": 1}, {"run.seed": 1}])
