"""What the numbers were measured on."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from views_benchmark.report import Machine

_PACKAGES = (
    "kdaug", "numpy", "numba", "llvmlite", "pillow", "torch", "torchvision", "timm", "kornia", "albumentationsx",
    "opencv-python-headless",
)  # fmt: skip


def this_machine() -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions={package: version_of(package) for package in _PACKAGES},
        commit=_commit(),
        date=datetime.now(UTC).date().isoformat(),
    )


def load() -> float:
    """Processes that wanted a core in the last minute, on average; a quiet machine has 0 at the start."""
    return round(os.getloadavg()[0], 2)


def two_threads_gain(times: int = 5) -> list[float]:
    """How many times as fast two threads hash as one, several times over: what the machine has to give just now."""
    data = bytes(1 << 25)

    def hash_it() -> None:
        hashlib.sha256(data).digest()  # without the GIL, and in no need of memory

    def seconds(work: Callable[[], object]) -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: hash_it(), range(2)))
        gains = []
        for _ in range(times):
            alone = seconds(hash_it)
            together = seconds(lambda: list(pool.map(lambda _: hash_it(), range(2))))
            gains.append(2 * alone / together)
    return gains


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _commit() -> str:
    """The commit of the checkout that this file lies in, with "-dirty" if files were changed since."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
