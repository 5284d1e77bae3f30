"""environment.json: the software, hardware and images that a run was trained with."""

from __future__ import annotations

import json
import logging
import os
import platform
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kdaug.config import Recipe, ResolvedRun
from kdaug.data import Dataset
from kdaug.device import available_cores
from kdaug.errors import InputError
from kdaug.runs.directory import RunDirectory
from kdaug.runs.identity import recipe_fingerprint
from kdaug.runs.metrics import RESTORE
from kdaug.storage import atomic_write

_logger = logging.getLogger(__name__)
_PACKAGES = ("kdaug", "torch", "torchvision", "timm", "numpy", "pillow")


def describe_environment(
    recipe: Recipe, device: torch.device, precision: torch.dtype, dataset: Dataset, processes: int
) -> dict[str, Any]:
    """Versions, hardware, settings and images that a result depends on; `processes` train together."""
    unlabelled = {} if dataset.unlabelled is None else {"unlabelled_images": len(dataset.unlabelled)}
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "processes": processes,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": str(precision).removeprefix("torch."),
        "data": dataset.content,
        "recipe": recipe_fingerprint(recipe, dataset.content),
        **({"unlabelled": dataset.unlabelled_content} if dataset.unlabelled_content else {}),
        **unlabelled,
    }


def read_environment(directory: RunDirectory) -> dict[str, Any]:
    """The content of environment.json; empty if there is no such file, InputError if it is damaged."""
    if not directory.environment.is_file():
        return {}
    try:
        environment = json.loads(directory.environment.read_bytes())
    except ValueError:
        environment = None
    if not environment or not isinstance(environment, dict) or not isinstance(environment.get("resumed", []), list):
        raise InputError(f"{directory.environment} is damaged", RESTORE)
    return environment


def keep_threads(run: ResolvedRun, directory: RunDirectory) -> ResolvedRun:
    """`run` with the number of torch threads that the run in `directory` began with, unless run.threads sets it.

    Another number would change the last bits of a resumed run. Returns `run` if the run has not begun.
    """
    threads = read_environment(directory).get("threads")
    if run.threads is not None or not isinstance(threads, int):
        return run
    if threads > available_cores():
        _logger.warning(f"the run began with {threads} threads and keeps them, but there are {available_cores()} cores")
    return replace(run, threads=threads)


def record_environment(directory: RunDirectory, environment: dict[str, Any], step: int) -> None:
    """Writes environment.json when a run begins. When it resumes at `step`, adds and logs what has changed.

    Raises InputError if the images or the recipe are not those that the run began with.
    """
    before = read_environment(directory)
    if not before:
        return atomic_write(directory.environment, json.dumps(environment, indent=1) + "\n")
    if any(before.get(name) != environment.get(name) for name in ("data", "unlabelled")):
        raise InputError(
            f"the dataset has changed since {directory.path} was started (images were added, removed or renamed)",
            "restore them, or start a new run in another run.dir",
        )
    if before.get("recipe") != environment["recipe"]:
        raise InputError(
            f"{directory.recipe} has changed since the run began",
            "restore it, or start a new run from it in another run.dir",
        )
    changed = {name: value for name, value in environment.items() if before.get(name) != value}
    if changed:
        shown = "; ".join(f"{name}: {before.get(name)} -> {value}" for name, value in changed.items())
        _logger.info(f"note: resumed in another environment, so the last bits may differ ({shown})")
        resumed = [*before.get("resumed", []), {"step": step, **changed}]
        atomic_write(directory.environment, json.dumps({**before, "resumed": resumed}, indent=1) + "\n")


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
