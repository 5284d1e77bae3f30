"""What the views engine is meant to reach, beside what it reached."""

from __future__ import annotations

from views_benchmark.report import Report, Target, total

# what, slower contender, faster contender, size, filter, at least
_RATIOS = (
    ("32 px, nearest: 1 thread against torchvision", "torchvision", "ours", 32, "nearest", 40),
    ("224 px, nearest: 1 thread against torchvision", "torchvision", "ours", 224, "nearest", 6),
    ("224 px, bilinear: 1 thread against torchvision", "torchvision", "ours", 224, "bilinear", 5),
    ("32 px, nearest: 2 threads against 1", "ours", "ours-2", 32, "nearest", 1.8),
    ("224 px, nearest: 2 threads against 1", "ours", "ours-2", 224, "nearest", 1.8),
    ("224 px, bilinear: 2 threads against 1", "ours", "ours-2", 224, "bilinear", 1.8),
    ("32 px, nearest: PIL to PIL against torchvision", "torchvision", "ours-pil", 32, "nearest", 4),
    ("224 px, nearest: PIL to PIL against torchvision", "torchvision", "ours-pil", 224, "nearest", 2),
)


def targets_of(report: Report) -> list[Target]:
    """All targets; those that were not measured say so."""
    found = []
    for what, slow, fast, size, filter, wanted in _RATIOS:
        ratio = report.ratio(slow, fast, size, filter)
        measured = round(ratio.median, 2) if ratio else None
        found.append(Target(what, f"≥ {wanted}×", measured, None if measured is None else measured >= wanted))
    starts = {start.cache: start for start in report.starts}
    cold = [starts["empty"].first_nearest, starts["empty"].first_bilinear] if "empty" in starts else []
    warm = [starts["filled"].importing, starts["filled"].first_nearest] if "filled" in starts else []
    found.append(_at_most("Compiling everything that this benchmark needs", "s", 30, total(*cold) if cold else None))
    found.append(_at_most("Start with a filled cache: import and first views", "s", 1, total(*warm) if warm else None))
    extra = report.memory.extra_batches if report.memory else None
    found.append(_at_most("Peak extra memory of apply, its result included", "batches", 2, extra))
    return found


def _at_most(what: str, unit: str, wanted: float, measured: float | None) -> Target:
    rounded = None if measured is None else round(measured, 2)
    return Target(what, f"≤ {wanted} {unit}", rounded, None if rounded is None else rounded <= wanted)
