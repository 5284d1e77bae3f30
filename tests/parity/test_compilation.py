"""Kernels are compiled when first used, logged, cached on disk, and without unused filters."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import kdaug
from kdaug.views.kernels import dispatch

COMPILE_ONE_KERNEL = """
import numpy as np
from kdaug.jit import announce_compilation
from kdaug.views.kernels import affine_interpolated, engine
from kdaug.views.ops import CODES

source, target, colors = np.zeros((9, 27), np.uint8), np.zeros((9, 27), np.uint8), np.zeros(27, np.uint8)
for _ in range(2):
    with announce_compilation():
        engine._apply_out_of_place(source, target, colors, 3, CODES["rotate"], np.array([1.0, 0, 0, 0]), 0, None, None)
print(len(affine_interpolated.affine_bilinear.signatures), len(affine_interpolated.affine_bicubic.signatures))
"""


def run(code: str, cache: Path) -> tuple[list[str], str]:
    """The words on stdout, and stderr, of a new Python process with numba's cache in `cache`."""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return process.stdout.split(), process.stderr


def test_compilation_is_logged_once_and_cached(tmp_path: Path) -> None:
    """Without the filters that the plan does not use."""
    printed, logged = run(COMPILE_ONE_KERNEL, tmp_path)
    assert printed == ["0", "0"]
    assert logged == "compiling the view kernels (once per machine, about 20 s) ...\n"
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}
    assert files
    assert run(COMPILE_ONE_KERNEL, tmp_path) == (["0", "0"], "")
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nb*")}


@pytest.mark.parametrize(("images", "most", "used"), [(64, 8, 1), (300, 8, 3), (300, 2, 2), (2, 8, 1)])
def test_a_thread_gets_at_least_256_kib(images: int, most: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = list[int]()
    make_pool = dispatch._thread_pool
    monkeypatch.setattr(dispatch, "_thread_pool", lambda threads: pools.append(threads) or make_pool(threads))
    kdaug.apply(np.zeros((images, 32, 32, 3), np.uint8), kdaug.plan_of([[]] * images, (32, 32)), most)
    assert pools == [used - 1] * (used - 1)


def test_apply_compiles_once_per_set_of_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within `announce_compilation`, and for the filters of the plan only."""
    announced = []

    @contextmanager
    def announce() -> Iterator[None]:
        announced.append(True)
        yield

    monkeypatch.setattr(dispatch, "_compiled", set())
    monkeypatch.setattr(dispatch, "announce_compilation", announce)
    images = np.zeros((1, 9, 9, 3), np.uint8)
    for step, resample, filters in [
        (("rotate", 30.0), "nearest", (None, None)),
        (("equalize",), "bicubic", (None, None)),
        (("shear-x", 0.1), "bilinear", (True, None)),
        (("shear-x", 0.1), "bicubic", (None, True)),
    ]:
        kdaug.apply(images, kdaug.plan_of([[step]], (9, 9), resample=resample))
        assert filters in dispatch._compiled
    assert len(dispatch._compiled) == len(announced) == 3


NO_CACHE = """
import numba.core.caching as caching
(getattr(caching, "CacheImpl", None) or caching._CacheImpl)._locator_classes = []  # the name depends on the version
import numpy as np
from kdaug.views.kernels.values import invert
pixels = np.zeros(5, np.uint8)
invert(pixels)
print(pixels.tolist() == [255] * 5)
"""


def test_kernels_work_without_a_cache_directory(tmp_path: Path) -> None:
    printed, _ = run(NO_CACHE, tmp_path)
    assert printed == ["True"]
    assert list(tmp_path.iterdir()) == []


def test_all_kernels_have_the_same_source_stamp() -> None:
    from kdaug.views.kernels import engine, values

    stamps = {function._cache._cache_file._source_stamp for function in (engine.apply_plan, values.invert)}
    assert len(stamps) == 1
    assert len(next(iter(stamps))) == 64


@pytest.mark.parametrize("module", ["kdaug", "kdaug.views", "kdaug.views.execution"])
def test_numba_is_not_imported_before_it_is_used(module: str, tmp_path: Path) -> None:
    code = f"import sys, numpy, {module}, kdaug; kdaug.plan_of([[('flip',)]], (9, 9)); print('numba' in sys.modules)"
    assert run(code, tmp_path) == (["False"], "")
