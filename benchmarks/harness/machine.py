"""The machine that a benchmark runs on."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.report import Machine

BASE_PACKAGES = ("kdaug", "numpy", "numba", "pillow", "torch", "torchvision", "timm")


def this_machine(packages: Sequence[str] = ()) -> Machine:
    """This machine, with the versions of BASE_PACKAGES and of `packages`."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={package: _version(package) for package in (*BASE_PACKAGES, *packages)},
        commit=_commit(),
        date=datetime.now(UTC).date().isoformat(),
    )


def load_average() -> float:
    """The load average of the last minute: near 0 on an idle machine."""
    return round(os.getloadavg()[0], 2)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _commit() -> str:
    """The commit of the checkout that contains this file, with "-dirty" if files have changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
