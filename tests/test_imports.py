"""Imports: quick commands import no heavy module, public names exist, and packages import only lower ones."""

from __future__ import annotations

import ast
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kdaug

SOURCE = Path(kdaug.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "torchvision", "timm", "matplotlib", "tyro", "PIL", "jinja2", "tensorboard", "safetensors", "numba")

PACKAGES = (
    "errors", "intervals", "calibration", "jit", "config", "rng", "storage", "device", "data", "views", "networks",
    "supervision", "runs", "training", "inference", "export", "recipes", "study", "photos", "inspection", "demo", "cli",
)  # fmt: skip
"""A package imports only itself and those before it. kdaug/__init__.py imports all of them, when they are used."""
TOP_LEVEL = ("__init__", "__main__", "_timm_registration")
STUDY_PACKAGES = ("sweep", "report", "paper")
ALLOWED = {package: set(PACKAGES[: number + 1]) for number, package in enumerate(PACKAGES)}
ALLOWED["recipes"] = {"config", "errors", "recipes"}


def test_quick_commands_import_no_heavy_module() -> None:
    """Importing torch takes seconds, so `import kdaug` and the commands that only print must not."""
    program = f"""
import contextlib, io, json, sys
import kdaug
def heavy():
    return [name for name in {HEAVY} if name in sys.modules]
loaded = {{"import": heavy()}}
from kdaug.cli.main import main
for argument in ("--help", "--version", "recipes", "views"):
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([argument]) == 0
    loaded[argument] = heavy()
print(json.dumps(loaded))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    flags = ["tyro"]  # parses their flags
    assert json.loads(result.stdout) == {
        "import": [], "--help": [], "--version": [], "recipes": flags, "views": flags,
    }  # fmt: skip


def test_every_public_name_exists() -> None:
    for name in kdaug.__all__:
        assert getattr(kdaug, name) is not None
    assert dir(kdaug) == sorted(kdaug.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        kdaug.nothing  # noqa: B018


@pytest.mark.parametrize(
    "package",
    ["demo", "data", "export", "inference", "inspection", "networks", "photos", "rng", "runs", "storage", "study.paper",
     "study.report", "study.sweep", "supervision", "training", "views"],
)  # fmt: skip
def test_every_package_exports_its_public_names(package: str) -> None:
    module = importlib.import_module(f"kdaug.{package}")
    assert module.__doc__
    assert all(hasattr(module, name) for name in module.__all__)


def imports_of(file: Path) -> Iterator[tuple[str, int]]:
    """Every module (or name of a module) that `file` imports, dotted, with its line."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def package_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_all_packages_are_in_the_list() -> None:
    assert {package_of(file) for file in FILES} - set(TOP_LEVEL) == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_lower_ones(package: str) -> None:
    for file in (file for file in FILES if package_of(file) == package):
        for name, line in imports_of(file):
            top, _, rest = name.partition(".")
            assert top != "kdaug" or rest.split(".")[0] in ALLOWED[package], f"{file}:{line} imports {name}"


@pytest.mark.parametrize("package", STUDY_PACKAGES)
def test_a_study_package_imports_only_lower_ones(package: str) -> None:
    lower = STUDY_PACKAGES[: STUDY_PACKAGES.index(package) + 1]
    for file in (SOURCE / "study" / package).rglob("*.py"):
        for name, line in imports_of(file):
            if name.startswith("kdaug.study."):
                assert name.split(".")[2] in lower, f"{file}:{line} imports {name}"


def test_runs_do_not_know_process_groups() -> None:
    """`runs` gets a rank as a number."""
    for file in (SOURCE / "runs").rglob("*.py"):
        for name, line in imports_of(file):
            assert not name.startswith(("torch.distributed", "kdaug.training")), f"{file}:{line} imports {name}"


def test_no_file_draws_from_hidden_random_state() -> None:
    for file in FILES:
        for name, line in imports_of(file):
            assert name.split(".")[0] not in ("random", "secrets"), f"{file}:{line}"
            assert not name.startswith("numpy.random"), f"{file}:{line}"
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = f"{node.value.id}.{node.attr}"
                assert used not in ("np.random", "numpy.random", "torch.rand", "torch.randn", "torch.randperm"), (
                    f"{file}:{node.lineno} uses {used}"
                )


def test_type_checkers_find_the_names_imported_later() -> None:
    """The imports under TYPE_CHECKING, those in _PACKAGE_OF and __all__ are the same names from the same packages."""
    imports = {name.rpartition(".")[2]: name.rpartition(".")[0] for name, _ in imports_of(SOURCE / "__init__.py")}
    assert {name: package for name, package in imports.items() if name in kdaug._PACKAGE_OF} == kdaug._PACKAGE_OF
    assert set(kdaug.__all__) == set(kdaug._PACKAGE_OF) | {"InputError", "__version__"}


def test_the_console_script_runs_the_module() -> None:
    module = subprocess.run([sys.executable, "-m", "kdaug", "--version"], capture_output=True, check=True)
    script = Path(sys.executable).with_name("kdaug")
    if not script.exists():
        pytest.skip("this Python has no kdaug script")
    assert subprocess.run([script, "--version"], capture_output=True, check=True).stdout == module.stdout
    assert os.access(script, os.X_OK)
