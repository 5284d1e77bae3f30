"""The results of a training benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from harness.report import Report
from harness.rounds import Spread, round_to


@dataclass(frozen=True)
class Settings:
    """What was trained and how it was measured.

    precision: the autocast dtype. default_threads: torch's threads as kdaug sets them without a setting. rounds,
    untimed, steps: see turns.Pace.
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
    cuda_graphs: bool = False


@dataclass(frozen=True)
class Timing:
    """Milliseconds per step of a contender; images_per_second is computed from the median."""

    contender: str
    threads: int
    milliseconds: Spread
    images_per_second: float


@dataclass(frozen=True)
class Ratio:
    """The speed of `contender` over that of `against`: of the medians, and the lowest and highest of all rounds."""

    contender: str
    against: str
    threads: int
    value: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class MatrixRate:
    """The rate of one product of two `side` x `side` matrices, measured in the same rounds."""

    threads: int
    side: int
    precision: str
    teraflops_per_second: Spread


@dataclass(frozen=True)
class Share:
    """A contender's operations per second in percent of the matrix product's: of the medians, lowest and highest."""

    contender: str
    threads: int
    percent: float
    lowest: float
    highest: float


@dataclass(kw_only=True)
class TrainingReport(Report):
    """operations_per_step: see matrix.training_operations. first_losses: by contender, with equal weights and batch."""

    settings: Settings
    timings: list[Timing] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    operations_per_step: int | None = None
    matrix: list[MatrixRate] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)
    first_losses: dict[str, float] = field(default_factory=dict)

    def labels(self) -> dict[str, str]:
        """The label of each contender by name."""
        return {one.name: one.label for one in self.entrants}

    def threads(self) -> list[int]:
        """The numbers of threads that were measured."""
        return sorted({one.threads for one in self.timings})

    def timing(self, contender: str, threads: int) -> Timing | None:
        """None if not measured."""
        return next((one for one in self.timings if (one.contender, one.threads) == (contender, threads)), None)

    def add_timing(self, contender: str, threads: int, milliseconds: Spread) -> None:
        """Adds the time per step of a contender."""
        images_per_second = round_to(1e3 * self.settings.batch / milliseconds.median, 5)
        self.timings.append(Timing(contender, threads, milliseconds, images_per_second))

    def add_ratios(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Adds the ratio of each pair (contender, against) that was measured, at each number of threads."""
        pairs = list(pairs)
        for threads in self.threads():
            for contender, against in pairs:
                fast, slow = self.timing(contender, threads), self.timing(against, threads)
                if fast is not None and slow is not None:
                    self.ratios.append(_ratio(fast, slow))

    def add_shares(self, contenders: Sequence[str], operations: int) -> None:
        """Adds what share of the matrix product's rate each contender reaches, at each number of threads."""
        self.operations_per_step = operations
        for rate in self.matrix:
            for name in contenders:
                timing = self.timing(name, rate.threads)
                if timing is not None:
                    self.shares.append(_share(timing, operations, rate))


def _ratio(fast: Timing, slow: Timing) -> Ratio:
    slow_times, fast_times = slow.milliseconds, fast.milliseconds
    by_round = [round_to(a / b, 4) for a, b in zip(slow_times.rounds, fast_times.rounds, strict=True)]
    value = round_to(slow_times.median / fast_times.median, 4)
    return Ratio(fast.contender, slow.contender, fast.threads, value, min(by_round), max(by_round))


def _share(timing: Timing, operations: int, rate: MatrixRate) -> Share:
    def percent(milliseconds: float, teraflops_per_second: float) -> float:
        return round_to(100 * (operations / milliseconds * 1e3) / (teraflops_per_second * 1e12), 4)

    step, product = timing.milliseconds, rate.teraflops_per_second
    by_round = [percent(*values) for values in zip(step.rounds, product.rounds, strict=True)]
    return Share(timing.contender, rate.threads, percent(step.median, product.median), min(by_round), max(by_round))
