"""What only a new process can show: how long the first views take, and how much memory views take at their peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from views_benchmark.contenders import POLICY
from views_benchmark.report import Memory, Start
from views_benchmark.rounds import spread_of

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

# VmHWM is the most memory the process ever held, since 5 was written to clear_refs. getrusage would not do: a new
# process inherits its figure from the one that started it.
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


def starts(progress: Callable[[str], None]) -> list[Start]:
    """A start with nothing compiled, then several that find everything compiled."""
    with tempfile.TemporaryDirectory() as cache:
        progress("a start with an empty cache (compiles; about 40 s)")
        cold = [_in_a_new_process(_FIRST_VIEWS, NUMBA_CACHE_DIR=cache)]
        progress(f"{WARM_STARTS} starts with the filled cache")
        warm = [_in_a_new_process(_FIRST_VIEWS, NUMBA_CACHE_DIR=cache) for _ in range(WARM_STARTS)]
    return [_start("empty", cold), _start("filled", warm)]


def _start(cache: str, runs: list[list[float]]) -> Start:
    return Start(cache, *[spread_of(seconds) for seconds in zip(*runs, strict=True)])


def peak_memory(count: int = 512, threads: int = 2) -> Memory | None:
    """Of one batch of `count` images of 224 pixels; None where there is no /proc to ask."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    batch, extra = _in_a_new_process(_PEAK.format(count=count, threads=threads))
    return Memory(batch, extra, round(extra / batch, 3), threads)


def _in_a_new_process(code: str, **environment: str) -> Any:
    """What `code` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)
