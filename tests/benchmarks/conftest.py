"""Runs benchmark scripts in the test process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Output:
    """Exit code and output of a script. `exit` is the argument of SystemExit: a code or a message, 0 without one."""

    exit: int | str | None
    stdout: str
    stderr: str


@pytest.fixture
def load_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of benchmarks/ by name; without $KDAUG_DATA."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delenv("KDAUG_DATA", raising=False)
    return importlib.import_module


@pytest.fixture
def run_script(
    load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Output]:
    """Runs the main function of a script with arguments."""

    def run(name: str, *arguments: str | Path) -> Output:
        script = load_script(name)
        monkeypatch.setattr(sys, "argv", [f"benchmarks/{name}.py", *map(str, arguments)])
        code: int | str | None = 0
        try:
            script.main()
        except SystemExit as exit:
            code = exit.code
        return Output(code, *capsys.readouterr())

    return run


@pytest.fixture
def small_images(load_script: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """Training benchmarks use 64 random images."""
    monkeypatch.setattr(load_script("training_benchmark.workload"), "RANDOM_IMAGES", 64)


@pytest.fixture
def assert_page_shows(run_script: Callable[..., Output]) -> Callable[[str, str], None]:
    """Fails unless a docs page contains what --table prints of the committed results of a script."""

    def check(page: str, name: str) -> None:
        results = f"benchmarks/results/{name}.json"
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        begin, end = f"<!-- begin: python benchmarks/{name}.py --table {results} -->", "<!-- end -->"
        assert (
            text.partition(begin)[2].partition(end)[0].strip()
            == run_script(name, "--table", ROOT / results).stdout.strip()
        )

    return check
