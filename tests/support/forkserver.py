"""Processes forked from a server that has imported torch, so that it is not imported again for every process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOAD = ["kdaug.training.smoke_test", "kdaug.cli.train", "kdaug.cli.label"]


def start_process(function: Callable[..., None], *arguments: Any, environment: dict[str, str]) -> ForkServerProcess:
    """Calls `function(*arguments)` in another process with this environment; the function must be importable."""
    _CONTEXT.set_forkserver_preload(_PRELOAD)
    process = _CONTEXT.Process(target=_run, args=(function, arguments, environment))
    process.start()
    return process


def _run(function: Callable[..., None], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    multiprocessing.set_start_method(None, force=True)  # for its own workers, the default and not the server
    function(*arguments)
