"""Imports: kdaug starts quickly, its public names are there, and every room looks only up the house."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdaug

SOURCE = Path(kdaug.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "torchvision", "timm", "matplotlib", "tyro", "PIL", "jinja2", "tensorboard", "safetensors", "numba")

# Each room may import those before it; `recipes` none but config and errors, the package's own __init__ all (lazily).
PACKAGES = (
    "errors", "jit", "config", "rng", "storage", "device", "data", "views", "networks", "supervision", "runs", "training",
    "inference", "inspection", "recipes", "study", "demo", "cli",
)  # fmt: skip
STUDY = ("sweep", "report", "paper")
ALLOWED = {room: set(PACKAGES[: place + 1]) for place, room in enumerate(PACKAGES)}
ALLOWED["recipes"] = {"config", "errors", "recipes"}


def seconds(*arguments: str) -> float:
    """The shortest of three runs of a fresh Python."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return min(taken)


def test_importing_kdaug_is_quick_and_leaves_the_heavy_packages_alone() -> None:
    assert seconds("-c", "import kdaug") < 1
    code = f"import kdaug, sys; print([name for name in {HEAVY} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["recipes"], ["views"]])
def test_the_command_answers_within_a_second(arguments: list[str]) -> None:
    assert seconds("-m", "kdaug", *arguments) < 1


def test_every_public_name_is_there() -> None:
    for name in kdaug.__all__:
        assert getattr(kdaug, name) is not None
    assert dir(kdaug) == sorted(kdaug.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        kdaug.nothing  # noqa: B018


@pytest.mark.parametrize(
    "room", ["demo", "data", "inspection", "networks", "study", "supervision", "training", "views"]
)
def test_every_room_re_exports_its_public_names(room: str) -> None:
    module = importlib.import_module(f"kdaug.{room}")
    assert module.__doc__
    assert all(hasattr(module, name) for name in module.__all__)


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Every module (or name of a module) that `file` imports, dotted, with its line."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_room_imports_only_from_rooms_above_it(file: Path) -> None:
    room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    if room in ("__init__", "__main__", "_timm_registration"):
        return
    for name, line in imported(file):
        package, _, rest = name.partition(".")
        if package == "kdaug":
            assert rest.split(".")[0] in ALLOWED[room], f"{file}:{line} imports {name}"


def test_every_room_has_its_place_in_the_house() -> None:
    rooms = {file.relative_to(SOURCE).parts[0].removesuffix(".py") for file in FILES}
    assert rooms - {"__init__", "__main__", "_timm_registration"} == set(PACKAGES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_file_draws_from_hidden_random_state(file: Path) -> None:
    for name, line in imported(file):
        assert name.split(".")[0] not in ("random", "secrets"), f"{file}:{line}"
        assert not name.startswith("numpy.random"), f"{file}:{line}"
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used = f"{node.value.id}.{node.attr}"
            assert used not in ("np.random", "numpy.random", "torch.rand", "torch.randn", "torch.randperm"), (
                f"{file}:{node.lineno} uses {used}"
            )


def test_type_checkers_see_the_names_that_are_loaded_late() -> None:
    """The imports under TYPE_CHECKING, those in _PACKAGE_OF and __all__ are the same names from the same rooms."""
    late = {name.rpartition(".")[2]: name.rpartition(".")[0] for name, _ in imported(SOURCE / "__init__.py")}
    assert {name: room for name, room in late.items() if name in kdaug._PACKAGE_OF} == kdaug._PACKAGE_OF
    assert set(kdaug.__all__) == set(kdaug._PACKAGE_OF) | {"InputError", "__version__"}


def test_the_command_is_the_module() -> None:
    from_module = subprocess.run([sys.executable, "-m", "kdaug", "--version"], capture_output=True, check=True)
    command = Path(sys.executable).with_name("kdaug")
    if not command.exists():
        pytest.skip("the command is not beside this Python")
    assert subprocess.run([command, "--version"], capture_output=True, check=True).stdout == from_module.stdout
    assert os.access(command, os.X_OK)
