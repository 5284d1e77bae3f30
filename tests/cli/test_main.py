"""The command itself: help, version, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from kdaug.cli.main import COMMANDS


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["help"]])
def test_help_names_every_command(kdaug: Callable, arguments: list[str]) -> None:
    result = kdaug(*arguments)
    assert (result.code, result.err) == (0, "")
    assert all(f"  {name} " in result.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(kdaug: Callable, name: str) -> None:
    result = kdaug(name, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"usage: kdaug {name}" in result.out


def test_version_is_that_of_the_package(kdaug: Callable) -> None:
    assert kdaug("--version").out == f"kdaug {version('kdaug')}\n"


def test_interruption_outside_training_exits_with_130(kdaug: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("kdaug.cli.recipes.run", interrupted)
    result = kdaug("recipes")
    assert (result.code, result.out, result.err) == (130, "", "kdaug: interrupted\n")


def test_an_internal_error_exits_with_1_and_a_traceback() -> None:
    code = (
        "import kdaug.cli.recipes as command, sys; from kdaug.cli.main import main\n"
        "command.run = lambda arguments: 1 // 0\n"
        "sys.exit(main(['recipes']))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["recipes"], ["recipes", "show", "demo"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_closed_pipe_is_no_error(arguments: list[str], unbuffered: str) -> None:
    """As in `kdaug recipes | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, "-m", "kdaug", *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (result.returncode, result.stderr) == (0, "")
