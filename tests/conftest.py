"""Fixtures and settings of all tests."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import support.networks  # noqa: F401  (registers the networks)
import torch
from hypothesis import HealthCheck, settings
from rich.console import Console
from support.commands import CommandResult, call_kdaug
from support.recipes import TINY, WITH_TEACHER, with_settings

from kdaug import apply, plan_of
from kdaug.config import Recipe
from kdaug.data import datasets
from kdaug.training import train

settings.register_profile(
    "reproducible", derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("reproducible")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread for torch: the networks of the tests are too small for several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _compiled_kernels() -> None:
    """Compiles the kernels once, so that no message about it appears in the output that a test compares."""
    plan = plan_of([[("rotate", 1.0)]], (2, 2))
    for resample in range(3):
        apply(np.zeros((1, 2, 2, 1), np.uint8), replace(plan, resample=np.full_like(plan.resample, resample)))


@pytest.fixture(scope="session", autouse=True)
def _bundled_images_are_read_once() -> Iterator[None]:
    """Otherwise, decoding them would take half of the time of a tiny run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_bundled", cache(datasets.load_bundled))
        yield


@pytest.fixture
def kdaug(capfd: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """`kdaug ARGUMENTS` in this process."""
    return partial(call_kdaug, capfd)


@pytest.fixture
def console() -> Console:
    """A console that keeps what is printed, see `console.file.getvalue()`."""
    return Console(file=io.StringIO(), soft_wrap=True)


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Callable[..., Recipe]:
    """TINY in tmp_path/run, with some settings (by dotted name) changed."""
    return lambda settings=None: with_settings(TINY, {"run.dir": str(tmp_path / "run"), **(settings or {})})


@pytest.fixture(scope="session")
def recipe_with_teacher(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """WITH_TEACHER in a directory of the session."""
    return with_settings(WITH_TEACHER, {"run.dir": str(tmp_path_factory.mktemp("runs") / "student")})


@pytest.fixture(scope="session")
def run_with_teacher(recipe_with_teacher: Recipe) -> Path:
    """The finished run of `recipe_with_teacher`; read only. Its teacher is in teachers/ next to it."""
    return train(recipe_with_teacher, Console(file=io.StringIO())).directory


@pytest.fixture(scope="session")
def teacher_run(run_with_teacher: Path) -> Path:
    """The finished run of the teacher of `run_with_teacher`; read only."""
    (directory,) = (run_with_teacher.parent / "teachers").iterdir()
    return directory
