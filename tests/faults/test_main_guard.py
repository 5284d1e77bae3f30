"""A script that trains without the `__main__` guard, where worker processes are spawned, is told just that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import multiprocessing
multiprocessing.set_start_method({method!r}, force=True)
import kdaug
from kdaug.config import Data, Network, Optimization, Run

recipe = kdaug.Recipe(
    data=Data(name="folder", root={root!r}, image_size=16, workers=1),
    student=Network("wide_resnet10_1"), optimization=Optimization(epochs=1, global_batch=8),
    run=Run(dir={run!r}, device="cpu", threads=1),
)
{guard}
    kdaug.train(recipe)
"""


@pytest.mark.parametrize(
    ("method", "guard", "works"),
    [
        ("spawn", "if True:", False),
        pytest.param("forkserver", "if True:", False, marks=pytest.mark.slow),
        pytest.param("spawn", "if __name__ == '__main__':", True, marks=pytest.mark.slow),
    ],
)
def test_a_missing_main_guard_is_named(photos: Path, tmp_path: Path, method: str, guard: str, works: bool) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(method=method, root=str(photos), run=str(tmp_path / "run"), guard=guard))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode == 0) == works, done.stderr
    if not works:
        *_, last = done.stderr.strip().splitlines()
        assert last.startswith("kdaug.errors.InputError: the script has no __main__ guard, so each worker process")
        assert last.endswith("put the call of kdaug under: if __name__ == '__main__':")
        assert done.stderr.count("Traceback") == 1, "the workers print nothing"
