"""Compiles numba kernels, caches them on disk, and logs when compilation starts."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event

_logger = logging.getLogger(__name__)
# No fastmath: a fused multiply-add or a reordered sum would change bytes, and results must be equal to Pillow's.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles `function` with numba, without the GIL; cached on disk if numba finds a writable directory."""
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return numba.njit(**_OPTIONS)(function)
    # numba recompiles a cached kernel if its own file has changed, but not if that of a kernel it calls has. So all
    # kernels get the same stamp. The attributes are private to numba. Without them only developers would notice: an
    # upgrade of the package changes all files.
    with suppress(AttributeError):
        compiled._cache._cache_file._source_stamp = _source_stamp()
    return compiled


@cache
def _source_stamp() -> str:
    """One hash of all source files that kernels are compiled from."""
    package = Path(__file__).parent
    kernels = [package / name for name in ("views/ops.py", "rng/kernel.py", "data/resize_kernel.py")]
    sources = [*sorted(package.glob("views/kernels/*.py")), *kernels]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


class _CompilationLogger(event.Listener):
    """Logs one message when numba first starts to compile."""

    def __init__(self, kernels: str, seconds: int) -> None:
        self._kernels, self._seconds, self._logged = kernels, seconds, False

    def on_start(self, event: Any) -> None:
        if not self._logged:
            self._logged = True
            _logger.warning("compiling the %s (once per machine, about %d s) ...", self._kernels, self._seconds)

    def on_end(self, event: Any) -> None:
        pass


@contextmanager
def announce_compilation(kernels: str = "view kernels", seconds: int = 20) -> Iterator[None]:
    """Logs a message, with about how long it takes, if a kernel is compiled in this context, not loaded from disk."""
    with event.install_listener("numba:compile", _CompilationLogger(kernels, seconds)):
        yield
