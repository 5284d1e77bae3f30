"""How much the machine gains from a second thread."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def two_threads_gain(times: int = 5) -> list[float]:
    """The speed of two threads over one at hashing, measured several times."""
    data = bytes(1 << 25)

    def hash_data() -> None:
        hashlib.sha256(data).digest()  # releases the GIL and needs little memory bandwidth

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    with ThreadPoolExecutor(2) as pool:

        def hash_twice() -> None:
            list(pool.map(lambda _: hash_data(), range(2)))

        hash_twice()  # starts the threads
        gains = []
        for _ in range(times):
            one = seconds(hash_data)
            gains.append(2 * one / seconds(hash_twice))
    return gains
