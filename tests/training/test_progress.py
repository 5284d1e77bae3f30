"""Messages of the library on a console, and through the program's own logging."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from rich.console import Console

from kdaug.config import Recipe
from kdaug.training import train
from kdaug.training.progress import console_logging

logger = logging.getLogger("kdaug.test")


def test_messages_are_printed_as_plain_lines(console: Console) -> None:
    package = logging.getLogger("kdaug")
    before = package.level, list(package.handlers)
    with console_logging(console):
        logger.info("a [bold]b[/bold] :cat: %s", "c" * 200)
        logger.warning("d")
        logger.debug("e")
    logger.info("f")
    assert console.file.getvalue() == f"a [bold]b[/bold] :cat: {'c' * 200}\nwarning: d\n"
    assert (package.level, package.handlers) == before


def test_without_console_the_programs_logging_is_used(
    tiny_recipe: Callable[..., Recipe], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """pytest has installed handlers. A program that has configured no logging gets the messages on stdout."""
    with caplog.at_level(logging.INFO, "kdaug"):
        train(tiny_recipe({"optimization.epochs": 1}))
    assert capsys.readouterr().out == ""
    assert "softmax_regression (7,850 parameters)" in caplog.text


def test_without_console_and_logging_messages_go_to_stdout(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with console_logging(None):
        logger.info("printed")
    logger.info("not printed")
    assert capsys.readouterr().out == "printed\n"
