"""A run directory: recipe, environment, metrics, checkpoints, weights. Never overwritten, only resumed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import torch

from kdaug import config
from kdaug.config import Recipe
from kdaug.data import Dataset
from kdaug.errors import InputError
from kdaug.files import is_part, write_whole
from kdaug.networks import is_whole_file
from kdaug.training.distributed import World
from kdaug.training.holding import LOCK, hold


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run, by what they are."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def best_weights(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def last_weights(self) -> Path:
        return self.path / "last.safetensors"

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return is_whole_file(self.last_weights) and any(line["kind"] == "end" for line in read_metrics(self.path))


def find_run(recipe: Recipe) -> RunDirectory:
    """The directory recipe.run.dir, new or to be continued; nothing is written yet.

    Raises InputError if it exists and is not to be resumed, is something else, or began with another recipe.
    """
    assert recipe.run.dir is not None
    directory = RunDirectory(Path(recipe.run.dir))
    if directory.recipe.is_file():
        if not recipe.run.resume:
            raise InputError(f"{directory.path} exists; continue it with --run.resume or choose another --run.dir")
        changed = "; ".join(differences(config.read_recipe(directory.recipe), recipe))
        if changed:
            raise InputError(f"{directory.path} began with another recipe ({changed}); choose another --run.dir")
        if read_metrics(directory.path) and not directory.checkpoints.is_dir() and not directory.finished:
            raise InputError(
                f"{directory.path} has lost its checkpoints/; bring it back, or train anew in another --run.dir"
            )
    elif directory.path.exists() and (not directory.path.is_dir() or _foreign(directory.path)):
        raise InputError(f"{directory.path} exists and is not a run directory; choose another --run.dir")
    return directory


def _foreign(folder: Path) -> bool:
    """Whether `folder` holds more than a run leaves that was killed as it began."""
    names = {path.name for path in folder.iterdir() if not (path.name.startswith("recipe.yaml.") and is_part(path))}
    return not names <= {LOCK, "checkpoints"}


def open_run(directory: RunDirectory, recipe: Recipe) -> IO[str]:
    """Writes what a new run begins with, and holds the run for this process until the returned file is closed.

    Raises InputError if the directory cannot be written, or another process is training in it.
    """
    try:
        directory.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {directory.path} cannot be written: {error.strerror}") from None
    lock = hold(directory.path, "trained")
    try:
        if not directory.recipe.is_file():
            write_whole(directory.recipe, config.to_yaml(replace(recipe, run=replace(recipe.run, resume=False))))
    except OSError:
        lock.close()
        raise
    return lock


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of the run's metrics.jsonl, in order; a last line cut short by a crash is left out.

    Raises InputError if an earlier line is not one that kdaug wrote.
    """
    file = path / "metrics.jsonl"
    texts = [text for text in file.read_bytes().splitlines() if text.strip()] if file.is_file() else []
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if _is_sound(line):
            lines.append(line)
        elif number < len(texts):
            raise InputError(f"{file}: line {number} is damaged; mend it, or train anew in another --run.dir")
    return lines


def _is_sound(line: Any) -> bool:
    """Whether a line has what its readers rely on."""
    if not isinstance(line, dict) or type(line.get("step")) is not int or type(line.get("epoch")) is not int:
        return False
    figures = {
        "step": ["cross_entropy"],
        "eval": ["top1_error"],
        "end": ["top1_error", "top5_error", "best_top1_error", "seconds"],
    }
    kind = line.get("kind")
    return kind in figures and all(isinstance(line.get(name), float | int) for name in figures[kind])


def what_is_learned(recipe: Recipe) -> dict[str, Any]:
    """The settings the outcome depends on, by dotted name: all but where, on what device and how fast."""
    by_name = {
        f"{part}.{key}": value for part, settings in config.to_dict(recipe).items() for key, value in settings.items()
    }
    incidental = {"data.download", "data.workers", "data.max_unreadable"}
    if not recipe.data.encoded:
        incidental.add("data.root")  # a named set is the same everywhere
    return {
        name: value
        for name, value in by_name.items()
        if name not in incidental and (not name.startswith("run.") or name in ("run.seed", "run.evaluate_size"))
    }


def fingerprint(recipe: Recipe, images: str | None = None) -> str:
    """Ten hexadecimal digits that differ when what is learned differs.

    Only settings that are not at their default count, so that a setting added to kdaug leaves them as they were.
    `images`: what stands for the place of an image folder, its content say; None: the path itself.
    """
    defaults = what_is_learned(Recipe())
    learned = {name: value for name, value in what_is_learned(recipe).items() if value != defaults.get(name)}
    if images is not None and recipe.data.encoded:
        learned["data.root"] = images
    return hashlib.sha256(json.dumps(learned, sort_keys=True).encode()).hexdigest()[:10]


def differences(before: Recipe, after: Recipe) -> list[str]:
    """Each setting of what is learned that differs, as "name: before -> after".

    An image folder may have moved: its content is compared, when the run goes on, in `record_environment`.
    """
    old, new = what_is_learned(before), what_is_learned(after)
    return [f"{name}: {old[name]} -> {new[name]}" for name in old if old[name] != new[name] and name != "data.root"]


def describe_environment(
    recipe: Recipe, device: torch.device, precision: torch.dtype, dataset: Dataset, world: World
) -> dict[str, Any]:
    """Versions, hardware, the settings and the very images that a result depends on."""
    packages = ("kdaug", "torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": str(precision).removeprefix("torch."),
        "data": dataset.content,
        "recipe": fingerprint(recipe, dataset.content),
    }


def read_environment(directory: RunDirectory) -> dict[str, Any]:
    """What environment.json says; nothing if it is not there, InputError if it is damaged."""
    if not directory.environment.is_file():
        return {}
    try:
        environment = json.loads(directory.environment.read_bytes())
    except ValueError:
        environment = None
    if not environment or not isinstance(environment, dict) or not isinstance(environment.get("resumed", []), list):
        raise InputError(f"{directory.environment} is damaged; mend it, or train anew in another --run.dir")
    return environment


def record_environment(
    directory: RunDirectory, environment: dict[str, Any], step: int, report: Callable[[str], None]
) -> None:
    """Writes environment.json as the run begins; when it goes on at `step`, adds and reports what has changed.

    Raises InputError if the images are no longer those that the run began with.
    """
    before = read_environment(directory)
    if not before:
        return write_whole(directory.environment, json.dumps(environment, indent=1) + "\n")
    if before.get("data") != environment["data"]:
        raise InputError(
            f"the images are not those that {directory.path} began with (some were added, removed or renamed); bring "
            "them back, or train anew in another --run.dir"
        )
    if before.get("recipe") != environment["recipe"]:
        raise InputError(
            f"{directory.recipe} has been changed since the run began; bring it back, or train from it in another "
            "--run.dir"
        )
    changed = {name: value for name, value in environment.items() if before.get(name) != value}
    if changed:
        shown = "; ".join(f"{name}: {before.get(name)} -> {value}" for name, value in changed.items())
        report(f"note: goes on in another environment, so the last bits may differ ({shown})")
        resumed = [*before.get("resumed", []), {"step": step, **changed}]
        write_whole(directory.environment, json.dumps({**before, "resumed": resumed}, indent=1) + "\n")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
