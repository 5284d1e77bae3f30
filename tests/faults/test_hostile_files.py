"""Files that want to run code: weights, checkpoints and recipes from anywhere are read, never obeyed."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch


@dataclass(frozen=True)
class Command:
    """Unpickled, this runs a shell command."""

    line: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.line,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """What lies about once code has been run."""
    return tmp_path / "canary"


def as_torch_saves(content: Any, path: Path) -> None:
    torch.save(content, path)


def as_torch_saved_long_ago(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("written", [as_torch_saves, as_torch_saved_long_ago, as_pickle])
def test_the_trap_works(canary: Path, tmp_path: Path, written: Callable[[Any, Path], None]) -> None:
    """Loaded without care, each of these files does run its command."""
    written({"weight": Command(f"touch {canary}")}, tmp_path / "evil.pth")
    if written is as_pickle:
        pickle.loads((tmp_path / "evil.pth").read_bytes())
    else:
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("written", [as_torch_saves, as_torch_saved_long_ago, as_pickle])
@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
def test_a_teacher_that_wants_to_run_code_is_refused(
    kdaug: Callable,
    short: list[str],
    tmp_path: Path,
    canary: Path,
    assert_one_line: Callable,
    recwarn: pytest.WarningsRecorder,
    name: str,
    written: Callable[[Any, Path], None],
) -> None:
    written({"fc.weight": torch.zeros(10, 64), "fc.bias": Command(f"touch {canary}")}, tmp_path / name)
    said = kdaug(*short, "--run.dir", tmp_path / "run", "--teacher.source", f"file:{tmp_path / name}")
    assert said.code == 2
    assert_one_line(said.err, f"{tmp_path / name} is not a weight file", "would have to run code")
    assert not recwarn.list  # the command would print them as lines of their own
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_wants_to_run_code_counts_as_damaged(
    kdaug: Callable,
    short: list[str],
    stopped_short: Path,
    tmp_path: Path,
    canary: Path,
    uninterrupted_short: Path,
    assert_same_run: Callable,
) -> None:
    """Though its sum is the right one."""
    run = shutil.copytree(stopped_short, tmp_path / "run")
    newest = max((run / "checkpoints").glob("step-*"))
    state, sums = newest / "state.pt", newest / "sha256.json"
    torch.save({**torch.load(state, weights_only=True), "step": Command(f"touch {canary}")}, state)
    corrected = {**json.loads(sums.read_text()), "state.pt": hashlib.sha256(state.read_bytes()).hexdigest()}
    sums.write_text(json.dumps(corrected))
    said = kdaug(*short, "--run.dir", run, "--run.resume")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"checkpoint {newest} is damaged (")
    assert not canary.exists()
    assert_same_run(run, uninterrupted_short)


TAGS = {
    "call": "views:\n  policy: !!python/object/apply:os.system ['touch {canary}']\n",
    "new object": "run: !!python/object/new:subprocess.Popen [[touch, '{canary}']]\n",
    "whole recipe": "!!python/object/apply:os.system ['touch {canary}']\n",
    "key": "? !!python/object/apply:os.system ['touch {canary}']\n: 1\n",
    "name": "views:\n  policy: !!python/name:os.system\n",
    "tag of one's own": "views: !policy {{policy: none}}\n",
    "harmless tag": "run:\n  seed: !!int 3\n",
}


@pytest.mark.parametrize("case", TAGS)
def test_a_recipe_with_a_tag_is_refused(
    kdaug: Callable, tmp_path: Path, canary: Path, assert_one_line: Callable, case: str
) -> None:
    recipe = tmp_path / "evil.yaml"
    recipe.write_text(TAGS[case].format(canary=canary))
    said = kdaug("train", recipe, "--run.dir", tmp_path / "run")
    assert said.code == 2
    assert_one_line(said.err, f"recipe {recipe}: not readable as plain YAML: tag ", "is not allowed")
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_refers_to_itself_over_and_over_is_refused_in_few_words(
    kdaug: Callable, tmp_path: Path, assert_one_line: Callable
) -> None:
    """Five lines of YAML that stand for a million values, and a few more would fill any memory."""
    lines = ["views:", "  policy:", "    - &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for depth in range(5):
        lines.append(f"    - &a{depth + 1} [{', '.join([f'*a{depth}'] * 10)}]")
    recipe = tmp_path / "laughs.yaml"
    recipe.write_text("\n".join(lines))
    said = kdaug("train", recipe, "--run.dir", tmp_path / "run")
    assert said.code == 2
    assert_one_line(said.err, f"recipe {recipe}: ")
    assert len(said.err) < 1000
