"""What the benchmark found, as records that are written to JSON and read back."""

from __future__ import annotations

import json
import statistics
import types
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from views_benchmark.rounds import Spread, spread_of


@dataclass(frozen=True)
class Machine:
    processor: str
    cores: int
    system: str
    python: str
    versions: dict[str, str]
    commit: str
    date: str


@dataclass(frozen=True)
class Batch:
    """The images of one size: how many, and where they are from."""

    size: int
    images: int
    source: str


@dataclass(frozen=True)
class Entrant:
    """A contender and what it does differently. `missing` says why it did not run."""

    name: str
    label: str
    differs: str
    missing: str | None = None


@dataclass(frozen=True)
class Timing:
    """Microseconds that a contender takes per image, RandAugment N=2, M=9."""

    contender: str
    size: int
    filter: str
    microseconds: Spread


@dataclass(frozen=True)
class OpTiming:
    """Microseconds that one op takes per image, on one thread, nearest.

    `floor`: what copying the image takes (see Copying); `times_floor`: how far ours is from it.
    """

    op: str
    size: int
    ours: Spread
    pillow: Spread
    floor: float
    times_floor: float


@dataclass(frozen=True)
class Copying:
    """A plain copy of the batch (numpy.copyto, one thread), which no op can beat; bytes are those read and written."""

    size: int
    bytes_per_image: int
    gigabytes_per_second: Spread


@dataclass(frozen=True)
class Start:
    """Seconds in a new process: `import kdaug`, then the first views, with nearest and then with bilinear.

    cache: "empty" (kernels are compiled) or "filled" (they are found on disk).
    """

    cache: str
    importing: Spread
    first_nearest: Spread
    first_bilinear: Spread


@dataclass(frozen=True)
class Memory:
    """How much more memory than before one `apply` holds at its peak, its result included, in bytes and in batches."""

    batch_bytes: int
    extra_bytes: int
    extra_batches: float
    threads: int


@dataclass(frozen=True)
class Target:
    """What is wanted and what came out; None: not measured."""

    what: str
    wanted: str
    measured: float | None
    met: bool | None


@dataclass
class Report:
    """`load`: processes that wanted a core, over the last minute, when the benchmark began and when it ended.

    two_threads: how many times as fast two threads are as one at work that shares nothing, before every setting. On a
    machine with two idle cores it is near 2; where it is not, no contender can gain much from a second thread.
    """

    policy: str
    machine: Machine
    batches: list[Batch]
    load: list[float] = field(default_factory=list)
    two_threads: Spread | None = None
    entrants: list[Entrant] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    ops: list[OpTiming] = field(default_factory=list)
    copying: list[Copying] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    memory: Memory | None = None
    targets: list[Target] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> Report:
        report: Report = read_record(Report, json.loads(path.read_text(encoding="utf-8")))
        return report

    def timing(self, contender: str, size: int, filter: str) -> Spread | None:
        """What was measured; None if that was not."""
        for one in self.timings:
            if (one.contender, one.size, one.filter) == (contender, size, filter):
                return one.microseconds
        return None

    def ratio(self, slow: str, fast: str, size: int, filter: str) -> Spread | None:
        """How many times as long `slow` takes as `fast`, from the rounds that both shared."""
        slower, faster = self.timing(slow, size, filter), self.timing(fast, size, filter)
        if slower is None or faster is None:
            return None
        return spread_of([a / b for a, b in zip(slower.rounds, faster.rounds, strict=True)])


def total(*parts: Spread) -> float:
    """The median of the sum, round by round."""
    return statistics.median(map(sum, zip(*(part.rounds for part in parts), strict=True)))


def read_record(kind: Any, value: Any) -> Any:
    """`value` from JSON as what the annotation `kind` says."""
    if is_dataclass(kind):
        kinds = get_type_hints(kind)
        return kind(**{name: read_record(kinds[name], part) for name, part in value.items()})
    if get_origin(kind) is list:
        return [read_record(get_args(kind)[0], part) for part in value]
    if get_origin(kind) is types.UnionType and value is not None:
        return read_record(get_args(kind)[0], value)
    return value
