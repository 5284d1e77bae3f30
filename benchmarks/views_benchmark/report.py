"""The results of the views benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.report import Report
from harness.rounds import Spread, divide_rounds


@dataclass(frozen=True)
class Batch:
    """The images of one size: their number and their source."""

    size: int
    images: int
    source: str


@dataclass(frozen=True)
class Timing:
    """Microseconds per image of a contender, RandAugment N=2, M=9."""

    contender: str
    size: int
    filter: str
    microseconds: Spread


@dataclass(frozen=True)
class OpTiming:
    """Microseconds per image of one op, on one thread, nearest.

    floor: the time of copying the image (see Copying). times_floor: ours / floor.
    """

    op: str
    size: int
    ours: Spread
    pillow: Spread
    floor: float
    times_floor: float


@dataclass(frozen=True)
class Copying:
    """A plain copy of the batch (numpy.copyto, one thread), which no op can beat; bytes read and written together."""

    size: int
    bytes_per_image: int
    gigabytes_per_second: Spread


@dataclass(frozen=True)
class Start:
    """Seconds in a new process: `import kdaug`, then the first views, first nearest, then bilinear.

    cache: numba's cache, "empty" (kernels are compiled) or "filled" (kernels are loaded from disk).
    """

    cache: str
    importing: Spread
    first_nearest: Spread
    first_bilinear: Spread


@dataclass(frozen=True)
class Memory:
    """Peak memory of one `apply` over what the process used before, result included, in bytes and in batches."""

    batch_bytes: int
    extra_bytes: int
    extra_batches: float
    threads: int


@dataclass(kw_only=True)
class ViewsReport(Report):
    """two_threads: the speed of two threads over one on independent work, measured before every setting.

    It is near 2 on a machine with two idle cores. Where it is lower, no contender can gain more from a second thread.
    """

    policy: str
    batches: list[Batch]
    two_threads: Spread | None = None
    timings: list[Timing] = field(default_factory=list)
    ops: list[OpTiming] = field(default_factory=list)
    copying: list[Copying] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    memory: Memory | None = None

    def timing(self, contender: str, size: int, filter: str) -> Spread | None:
        """Microseconds per image; None if not measured."""
        key = (contender, size, filter)
        return next((t.microseconds for t in self.timings if (t.contender, t.size, t.filter) == key), None)

    def ratio(self, slow: str, fast: str, size: int, filter: str) -> Spread | None:
        """The time of `slow` over that of `fast`, round by round; None if one of them was not measured."""
        slow_times, fast_times = self.timing(slow, size, filter), self.timing(fast, size, filter)
        if slow_times is None or fast_times is None:
            return None
        return divide_rounds(slow_times, fast_times)

    def fastest(self, contenders: Sequence[str], size: int, filter: str) -> str | None:
        """The contender with the smallest median time; None if none of them was measured."""
        times = {name: spread.median for name in contenders if (spread := self.timing(name, size, filter))}
        return min(times, key=times.__getitem__, default=None)


def median_sum(*parts: Spread) -> float:
    """The median of the sums by round."""
    return statistics.median(map(sum, zip(*(part.rounds for part in parts), strict=True)))
