"""Weights, checkpoints and recipes that would execute code when loaded are refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import assert_one_line
from support.recipes import SHORT_DEMO
from support.runs import assert_same_run


@dataclass(frozen=True)
class Command:
    """Unpickled, this runs a shell command."""

    line: str

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.line,)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that exists once code was executed."""
    return tmp_path / "canary"


def save_as_torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_as_old_torch(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_as_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [save_as_torch, save_as_old_torch, save_as_pickle])
def test_the_files_execute_code_if_loaded_carelessly(
    canary: Path, tmp_path: Path, save: Callable[[Any, Path], None]
) -> None:
    save({"weight": Command(f"touch {canary}")}, tmp_path / "evil.pth")
    if save is save_as_pickle:
        pickle.loads((tmp_path / "evil.pth").read_bytes())
    else:
        torch.load(tmp_path / "evil.pth", weights_only=False)
    assert canary.exists()


@pytest.mark.parametrize("save", [save_as_torch, save_as_old_torch, save_as_pickle])
@pytest.mark.parametrize("name", ["evil.pth", "evil.safetensors"])
def test_a_teacher_that_would_execute_code_is_refused(
    kdaug: Callable,
    tmp_path: Path,
    canary: Path,
    recwarn: pytest.WarningsRecorder,
    name: str,
    save: Callable[[Any, Path], None],
) -> None:
    save({"fc.weight": torch.zeros(10, 64), "fc.bias": Command(f"touch {canary}")}, tmp_path / name)
    result = kdaug(*SHORT_DEMO, "--run.dir", tmp_path / "run", "--teacher.source", f"file:{tmp_path / name}")
    assert result.code == 2
    assert_one_line(result.err, f"{tmp_path / name} is not a weight file", "run code when loaded is refused")
    assert not recwarn.list  # the command would print each as a line
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_would_execute_code_is_damaged(
    kdaug: Callable, stopped_run: Path, canary: Path, short_run: Path
) -> None:
    """Even if its checksum is correct."""
    run = stopped_run
    newest = max((run / "checkpoints").glob("step-*"))
    state, sums = newest / "state.pt", newest / "sha256.json"
    torch.save({**torch.load(state, weights_only=True), "step": Command(f"touch {canary}")}, state)
    corrected = {**json.loads(sums.read_text()), "state.pt": hashlib.sha256(state.read_bytes()).hexdigest()}
    sums.write_text(json.dumps(corrected))
    result = kdaug(*SHORT_DEMO, "--run.dir", run, "--run.resume")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"warning: checkpoint {newest} is damaged (")
    assert not canary.exists()
    assert_same_run(run, short_run)


TAGS = {
    "call": "views:\n  policy: !!python/object/apply:os.system ['touch {canary}']\n",
    "new object": "run: !!python/object/new:subprocess.Popen [[touch, '{canary}']]\n",
    "whole recipe": "!!python/object/apply:os.system ['touch {canary}']\n",
    "key": "? !!python/object/apply:os.system ['touch {canary}']\n: 1\n",
    "name": "views:\n  policy: !!python/name:os.system\n",
    "custom tag": "views: !policy {{policy: none}}\n",
    "harmless tag": "run:\n  seed: !!int 3\n",
}


@pytest.mark.parametrize("case", TAGS)
def test_a_recipe_with_a_tag_is_refused(kdaug: Callable, tmp_path: Path, canary: Path, case: str) -> None:
    recipe = tmp_path / "evil.yaml"
    recipe.write_text(TAGS[case].format(canary=canary))
    result = kdaug("train", recipe, "--run.dir", tmp_path / "run")
    assert result.code == 2
    assert_one_line(result.err, f"recipe {recipe}: not readable as plain YAML: tag ", "is not allowed")
    assert not canary.exists()
    assert not (tmp_path / "run").exists()


def test_a_recipe_with_nested_aliases_is_refused_in_few_words(kdaug: Callable, tmp_path: Path) -> None:
    """Five lines of YAML expand to a million values; a few more lines would need any memory."""
    lines = ["views:", "  policy:", "    - &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for depth in range(5):
        lines.append(f"    - &a{depth + 1} [{', '.join([f'*a{depth}'] * 10)}]")
    recipe = tmp_path / "laughs.yaml"
    recipe.write_text("\n".join(lines))
    result = kdaug("train", recipe, "--run.dir", tmp_path / "run")
    assert result.code == 2
    assert_one_line(result.err, f"recipe {recipe}: ")
    assert len(result.err) < 1000
