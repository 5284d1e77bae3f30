"""What a benchmark of training found, as records that are written to JSON and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from views_benchmark.report import Entrant, Machine, Target, read_record
from views_benchmark.rounds import Spread


@dataclass(frozen=True)
class Settings:
    """What was trained and how it was measured.

    precision: the autocast type. default_threads: torch's threads as kdaug sets them if a recipe does not.
    rounds, untimed, steps: see turns.Pace.
    """

    device: str
    network: str
    teacher: str
    batch: int
    precision: str
    policy: str
    images: str
    compiled: bool
    default_threads: int
    rounds: int
    untimed: int
    steps: int


@dataclass(frozen=True)
class Timing:
    """What a step of a contender takes, in milliseconds; images_per_second follows from the median."""

    contender: str
    threads: int
    milliseconds: Spread
    images_per_second: float


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as `against` a contender is: by the medians, and at least and at most in a round."""

    contender: str
    against: str
    threads: int
    value: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class MatrixRate:
    """One matrix product of `side` x `side`, measured in the same rounds."""

    threads: int
    side: int
    precision: str
    teraflops_per_second: Spread


@dataclass(frozen=True)
class Share:
    """A contender's operations per second in percent of the matrix product's: by medians, least and most in a round."""

    contender: str
    threads: int
    percent: float
    lowest: float
    highest: float


@dataclass
class TrainingReport:
    """`load`: processes that wanted a core, over the last minute, when the benchmark began and when it ended.

    operations_per_step: see matrix.training_operations. first_losses: of contenders that begin with the same weights
    and batch.
    """

    settings: Settings
    machine: Machine
    load: list[float] = field(default_factory=list)
    entrants: list[Entrant] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    operations_per_step: int | None = None
    matrix: list[MatrixRate] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    first_losses: dict[str, float] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def read(path: Path) -> TrainingReport:
        report: TrainingReport = read_record(TrainingReport, json.loads(path.read_text(encoding="utf-8")))
        return report

    def threads(self) -> list[int]:
        """The numbers of threads that were measured."""
        return sorted({one.threads for one in self.timings})

    def timing(self, contender: str, threads: int) -> Timing | None:
        """What was measured; None if that was not."""
        return next((one for one in self.timings if (one.contender, one.threads) == (contender, threads)), None)

    def ratio(self, contender: str, against: str, threads: int) -> Ratio | None:
        """How many times as fast as `against` a contender is; None if one of them was not measured."""
        fast, slow = self.timing(contender, threads), self.timing(against, threads)
        if fast is None or slow is None:
            return None
        slower, faster = slow.milliseconds, fast.milliseconds
        by_round = [_kept(a / b) for a, b in zip(slower.rounds, faster.rounds, strict=True)]
        value = _kept(slower.median / faster.median)
        return Ratio(contender, against, threads, value, min(by_round), max(by_round))

    def ratios_of(self, pairs: Iterable[tuple[str, str]]) -> list[Ratio]:
        """The ratio of each pair (contender, against) that was measured, at each number of threads."""
        pairs = list(pairs)
        found = [self.ratio(one, other, threads) for threads in self.threads() for one, other in pairs]
        return [ratio for ratio in found if ratio is not None]

    def shares_of(self, contenders: Sequence[str]) -> list[Share]:
        """How much of the matrix product's rate each of `contenders` reaches, at each number of threads."""
        measured = [(rate, self.timing(name, rate.threads)) for rate in self.matrix for name in contenders]
        return [_share(timing, self.operations_per_step, rate) for rate, timing in measured if timing is not None]


def _share(timing: Timing, operations: int | None, rate: MatrixRate) -> Share:
    assert operations is not None

    def percent(milliseconds: float, teraflops_per_second: float) -> float:
        return _kept(100 * (operations / milliseconds * 1e3) / (teraflops_per_second * 1e12))

    step, product = timing.milliseconds, rate.teraflops_per_second
    by_round = [percent(*both) for both in zip(step.rounds, product.rounds, strict=True)]
    return Share(timing.contender, rate.threads, percent(step.median, product.median), min(by_round), max(by_round))


def _kept(value: float) -> float:
    return float(f"{value:.4g}")
