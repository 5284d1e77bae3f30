"""Measurements in new processes: the time to the first views, and the peak memory of making views."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness.progress import print_progress
from harness.rounds import spread_of
from views_benchmark.contenders import POLICY
from views_benchmark.report import Memory, Start

WARM_STARTS = 5

_FIRST_VIEWS = f"""
import json, time
begin = time.perf_counter()
import kdaug
imported = time.perf_counter()
import numpy as np
from dataclasses import replace
images = np.zeros((32, 32, 32, 3), np.uint8)
plan = kdaug.create_policy("{POLICY}").plan(0, 0, range(32), (32, 32))
kdaug.apply(images, plan, threads=1)
nearest = time.perf_counter()
kdaug.apply(images, replace(plan, resample=np.ones_like(plan.resample)), threads=1)
bilinear = time.perf_counter()
print(json.dumps([imported - begin, nearest - imported, bilinear - nearest]))
"""

# VmHWM is the peak memory of the process; writing 5 to clear_refs resets it. getrusage cannot be used: a new process
# inherits the value of its parent.
_PEAK = f"""
import json, sys
import kdaug
import numpy as np
def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))
threads = {{threads}}
images = np.full(({{count}}, 224, 224, 3), 100, np.uint8)
policy = kdaug.create_policy("{POLICY}")
kdaug.apply(images[:8], policy.plan(0, 0, range(8), (224, 224)), threads=threads)
plan = policy.plan(0, 0, range({{count}}), (224, 224))
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
views = kdaug.apply(images, plan, threads=threads)
print(json.dumps([images.nbytes, status("VmHWM") - before]))
"""


def measure_starts() -> list[Start]:
    """One start with an empty numba cache, then WARM_STARTS starts with the filled one."""
    with tempfile.TemporaryDirectory() as cache:
        print_progress("start with an empty cache (compiles; about 40 s)")
        cold = [_run_process(_FIRST_VIEWS, NUMBA_CACHE_DIR=cache)]
        print_progress(f"{WARM_STARTS} starts with the filled cache")
        warm = [_run_process(_FIRST_VIEWS, NUMBA_CACHE_DIR=cache) for _ in range(WARM_STARTS)]
    return [_start("empty", cold), _start("filled", warm)]


def _start(cache: str, runs: list[list[float]]) -> Start:
    return Start(cache, *[spread_of(seconds) for seconds in zip(*runs, strict=True)])


def measure_memory(count: int = 512, threads: int = 2) -> Memory | None:
    """Peak memory of one batch of `count` images of 224 pixels; None on systems without /proc."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    print_progress("peak memory")
    batch, extra = _run_process(_PEAK.format(count=count, threads=threads))
    return Memory(batch, extra, round(extra / batch, 3), threads)


def _run_process(code: str, **environment: str) -> Any:
    """Runs `code` in a new Python process and returns the JSON that it prints."""
    process = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(process.stdout)
