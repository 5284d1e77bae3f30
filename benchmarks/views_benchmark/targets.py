"""The targets of the views engine."""

from __future__ import annotations

from harness.report import Target
from views_benchmark.report import ViewsReport, median_sum

# text, slower contender, faster contender, size, filter, lowest ratio
_RATIOS = (
    ("32 px, nearest: 1 thread, speed over torchvision", "torchvision", "ours", 32, "nearest", 40),
    ("224 px, nearest: 1 thread, speed over torchvision", "torchvision", "ours", 224, "nearest", 6),
    ("224 px, bilinear: 1 thread, speed over torchvision", "torchvision", "ours", 224, "bilinear", 5),
    ("32 px, nearest: 2 threads, speed over 1", "ours", "ours-2", 32, "nearest", 1.8),
    ("224 px, nearest: 2 threads, speed over 1", "ours", "ours-2", 224, "nearest", 1.8),
    ("224 px, bilinear: 2 threads, speed over 1", "ours", "ours-2", 224, "bilinear", 1.8),
    ("32 px, nearest: PIL to PIL, speed over torchvision", "torchvision", "ours-pil", 32, "nearest", 4),
    ("224 px, nearest: PIL to PIL, speed over torchvision", "torchvision", "ours-pil", 224, "nearest", 2),
    ("32 px, nearest: 2 threads, speed over DALI on all cores", "dali-all", "ours-2", 32, "nearest", 1),
    ("224 px, nearest: 2 threads, speed over DALI on all cores", "dali-all", "ours-2", 224, "nearest", 1),
    ("224 px, bilinear: 2 threads, speed over DALI on all cores", "dali-all", "ours-2", 224, "bilinear", 1),
)

_SETTINGS = tuple((size, filter) for size in (32, 224) for filter in ("nearest", "bilinear"))
_KDAUG = ("ours", "ours-2", "ours-pil")
_MANY_THREADS = ("dali-all",)


def views_targets(report: ViewsReport) -> list[Target]:
    """All targets, also those that were not measured."""
    targets = []
    for text, slow, fast, size, filter, lowest in _RATIOS:
        ratio = report.ratio(slow, fast, size, filter)
        measured = round(ratio.median, 2) if ratio else None
        targets.append(Target(text, f"≥ {lowest}×", measured, None if measured is None else measured >= lowest))
    targets += [_over_fastest(report, *setting) for setting in _SETTINGS]
    starts = {start.cache: start for start in report.starts}
    cold = [starts["empty"].first_nearest, starts["empty"].first_bilinear] if "empty" in starts else []
    warm = [starts["filled"].importing, starts["filled"].first_nearest] if "filled" in starts else []
    memory = report.memory.extra_batches if report.memory else None
    return [
        *targets,
        _at_most("Compilation of all kernels used here", "s", 30, median_sum(*cold) if cold else None),
        _at_most("Import and first views with a filled cache", "s", 1, median_sum(*warm) if warm else None),
        _at_most("Peak extra memory of apply, result included", "batches", 2, memory),
    ]


def _over_fastest(report: ViewsReport, size: int, filter: str) -> Target:
    """kdaug on one thread against the fastest of the other contenders on one thread, whichever it is."""
    labels = {one.name: one.label for one in report.entrants if one.name not in (*_KDAUG, *_MANY_THREADS)}
    peer = report.fastest(list(labels), size, filter)
    ratio = report.ratio(peer, "ours", size, filter) if peer else None
    text = f"{size} px, {filter}: 1 thread, speed over the fastest peer"
    if peer is None or ratio is None:
        return Target(text, "≥ 1×", None, None)
    measured = round(ratio.median, 2)
    return Target(f"{text} ({labels[peer]})", "≥ 1×", measured, measured >= 1)


def _at_most(text: str, unit: str, limit: float, value: float | None) -> Target:
    rounded = None if value is None else round(value, 2)
    return Target(text, f"≤ {limit} {unit}", rounded, None if rounded is None else rounded <= limit)
