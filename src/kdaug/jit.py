"""How kernels are compiled: cached on disk where that is possible, announced when it takes a while."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event

# No fastmath: one fused multiply-add or reordered sum, and the bytes are no longer Pillow's.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


def kernel(function: Callable[..., Any]) -> Any:
    """`function` compiled without the GIL, kept on disk if numba finds a directory that it may write."""
    try:
        compiled = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba: "cannot cache function: no locator available"
        return numba.njit(**_OPTIONS)(function)
    # numba renews what it keeps when the file of the kernel changes, but not when that of a kernel it calls does. So
    # all kernels bear one stamp. The attributes are numba's own affair; should they go, users lose nothing by it.
    with suppress(AttributeError):
        compiled._cache._cache_file._source_stamp = _stamp()
    return compiled


@cache
def _stamp() -> str:
    """What everything that a kernel is compiled from has in common: one hash of the sources."""
    package = Path(__file__).parent
    sources = [*sorted(package.glob("views/kernels/*.py")), package / "views/ops.py", package / "rng/kernel.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


class _Announcement(event.Listener):
    """One line on stderr when numba starts to compile."""

    def __init__(self) -> None:
        self._made = False

    def on_start(self, event: Any) -> None:
        if not self._made:
            self._made = True
            print("kdaug: compiling the view kernels (once per machine, about 20 s) ...", file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        pass


@contextmanager
def announce_compilation() -> Iterator[None]:
    """Whatever is compiled in here, and not found on disk, is announced."""
    with event.install_listener("numba:compile", _Announcement()):
        yield
