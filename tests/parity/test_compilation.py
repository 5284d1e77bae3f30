"""Kernels are compiled when first needed, said to be so, kept on disk, and only those that a plan uses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

APPLY = """
import sys, time
start = time.perf_counter()
import numpy as np, kdaug
numpy_only = time.perf_counter() - start
plan = kdaug.plan_of([[("rotate", 30.0), ("equalize",)]], (9, 9))
assert "numba" not in sys.modules
kdaug.apply(np.zeros((1, 9, 9, 3), np.uint8), plan)
from kdaug.views.kernels import affine_interpolated, engine
print(len(affine_interpolated.affine_bilinear.signatures), len(affine_interpolated.affine_bicubic.signatures))
print(len(engine.views_of.signatures))
"""


def run(code: str, cache: Path) -> tuple[list[str], str, float]:
    """What a fresh Python prints, says on stderr, and the seconds it takes."""
    start = time.perf_counter()
    told = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split(), told.stderr, time.perf_counter() - start


def test_compilation_is_announced_once_and_kept_and_leaves_filters_out(tmp_path: Path) -> None:
    printed, said, cold = run(APPLY, tmp_path)
    assert printed == ["0", "0", "1"]
    assert said.count("compiling the view kernels (once per machine") == 1
    assert said.count("\n") == 1
    printed, said, warm = run(APPLY, tmp_path)
    assert printed == ["0", "0", "1"]
    assert said == ""
    assert warm < cold / 2


NO_CACHE = """
import numba.core.caching as caching
(getattr(caching, "CacheImpl", None) or caching._CacheImpl)._locator_classes = []  # named otherwise in older numba
import numpy as np
from kdaug.views.kernels.values import invert
pixels = np.zeros(5, np.uint8)
invert(pixels)
print(pixels.tolist() == [255] * 5)
"""


def test_without_a_directory_for_the_cache_kernels_are_compiled_each_time(tmp_path: Path) -> None:
    printed, _, _ = run(NO_CACHE, tmp_path)
    assert printed == ["True"]
    assert list(tmp_path.iterdir()) == []


def test_a_change_in_any_kernel_renews_all() -> None:
    from kdaug.views.kernels import engine, values

    stamps = {function._cache._cache_file._source_stamp for function in (engine.views_of, values.invert)}
    assert len(stamps) == 1
    assert len(next(iter(stamps))) == 64


@pytest.mark.parametrize("module", ["kdaug", "kdaug.views", "kdaug.views.apply"])
def test_numba_is_not_imported_before_it_is_used(module: str, tmp_path: Path) -> None:
    printed, _, _ = run(f"import sys, {module}; print('numba' in sys.modules)", tmp_path)
    assert printed == ["False"]
