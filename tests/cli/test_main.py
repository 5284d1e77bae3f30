"""The command itself: help, version, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from kdaug.cli.main import VERBS


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_help_names_every_verb(kdaug: Callable, arguments: list[str]) -> None:
    said = kdaug(*arguments)
    assert (said.code, said.err) == (0, "")
    assert all(f"  {verb} " in said.out for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(kdaug: Callable, verb: str) -> None:
    said = kdaug(verb, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"usage: kdaug {verb}" in said.out


def test_the_version_is_that_of_the_package(kdaug: Callable) -> None:
    assert kdaug("--version").out == f"kdaug {version('kdaug')}\n"


def test_interrupted_outside_training_is_130_in_one_line(kdaug: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdaug.cli.recipes.run", interrupted)
    said = kdaug("recipes")
    assert (said.code, said.out, said.err) == (130, "", "kdaug: interrupted\n")


def test_a_defect_of_ours_is_1_with_its_traceback() -> None:
    code = (
        "import kdaug.cli.recipes as verb, sys; from kdaug.cli.main import main\n"
        "verb.run = lambda arguments: 1 // 0\n"
        "sys.exit(main(['recipes']))"
    )
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert died.returncode == 1
    assert "ZeroDivisionError" in died.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["recipes", "show", "demo"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_error(arguments: list[str], unbuffered: str) -> None:
    """As in `kdaug recipes | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    told = subprocess.run(
        [sys.executable, "-m", "kdaug", *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (told.returncode, told.stderr) == (0, "")
